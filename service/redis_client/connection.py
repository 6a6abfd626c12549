"""One connection to Redis as an asyncio protocol. Matches replies to commands by their order."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, cast

import hiredis
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

from service.redis_client.errors import ServerDemoted
from service.redis_client.scripts import Command

_INCOMPLETE = object()
_log = logging.getLogger(__name__)
_ERRORS = {"NOSCRIPT": NoScriptError, "READONLY": ReadOnlyError}


class Exchange(Protocol):
    """Commands of one write and their replies. The connection calls `settle` or `fail` exactly once."""

    deadline: float
    """In seconds of the event loop's clock."""
    replies: list[Any]

    def pack(self) -> tuple[bytes, int]:
        """The bytes to send, and the number of replies to expect."""

    def settle(self) -> None:
        """All replies are in `replies`."""

    def fail(self, error: Exception) -> None:
        """The connection was lost before the last reply."""


class _InFlight(NamedTuple):
    exchange: Any
    expected_replies: int
    sent_at: float


class Connection(asyncio.Protocol):
    """Speaks RESP. Replies are bytes, integers, lists, dicts and ResponseErrors."""

    def __init__(self, on_lost: Callable[["Connection"], None], on_writable: Callable[[], None]) -> None:
        self._on_lost = on_lost
        self._on_writable = on_writable
        self._reader = hiredis.Reader(replyError=_error_from, notEnoughData=_INCOMPLETE)
        self._in_flight: deque[_InFlight] = deque()
        self._transport: asyncio.Transport | None = None
        self._is_retired = False
        self._abort_error: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self.writable = True
        self.is_to_a_primary = False
        """Whether the server was a primary when the connection was opened."""
        self.closed: asyncio.Future[None] = self._loop.create_future()

    @property
    def is_busy(self) -> bool:
        return bool(self._in_flight)

    def is_stuck(self, since: float) -> bool:
        """Whether a batch sent at or before `since` (the event loop's clock) is still unanswered."""
        return self.is_busy and self._in_flight[0].sent_at <= since

    def overdue(self, now: float) -> list[Any]:
        """The exchanges in flight whose deadline has passed."""
        return [sent.exchange for sent in self._in_flight if sent.exchange.deadline <= now]

    def send(self, exchange: Exchange) -> None:
        assert self._transport is not None
        packed, expected_replies = exchange.pack()
        self._in_flight.append(_InFlight(exchange, expected_replies, self._loop.time()))
        self._transport.write(packed)

    def retire(self) -> None:
        """Close the connection after the last reply that is in flight."""
        self._is_retired = True
        self._close_if_idle()

    def abort(self, error: Exception) -> None:
        """Close the connection now. Exchanges in flight fail with `error`."""
        self._abort_error = error
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from it

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            self._match_replies()
        except ServerDemoted as error:  # replies behind this one may be stale
            self.abort(error)
        except Exception as error:  # later replies can no longer be matched to their commands
            _log.exception("closing a Redis connection: its replies do not match the commands sent")
            self.abort(error)

    def connection_lost(self, exc: Exception | None) -> None:
        error = self._abort_error or exc or ConnectionResetError("Redis closed the connection")
        self._transport = None
        self._on_lost(self)
        while self._in_flight:
            self._in_flight.pop().exchange.fail(error)
        self.closed.set_result(None)

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._on_writable()

    def _match_replies(self) -> None:
        next_reply = self._reader.gets
        while (reply := next_reply()) is not _INCOMPLETE:
            exchange, expected_replies, _ = self._in_flight[0]
            exchange.replies.append(reply)
            if len(exchange.replies) == expected_replies:
                exchange.settle()
                self._in_flight.popleft()
        if self._is_retired:
            self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._transport is not None and not self._in_flight:
            self._transport.close()


class RoleCheck:
    """An exchange that closes the connection if the server is no longer a primary.

    A demoted server keeps serving reads, from data that becomes stale.
    """

    deadline = float("inf")

    def __init__(self) -> None:
        self.replies: list[Any] = []

    def pack(self) -> tuple[bytes, int]:
        return packed([("ROLE",)]), 1

    def settle(self) -> None:
        """Raises ServerDemoted. Does nothing if the account may not run ROLE."""
        (role,) = self.replies
        if not isinstance(role, ResponseError) and role[0] != b"master":
            raise ServerDemoted("the server is no longer a primary")

    def fail(self, error: Exception) -> None: ...


def packed(commands: Sequence[Command]) -> bytes:
    pack: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]
    return pack(commands[0]) if len(commands) == 1 else b"".join([pack(command) for command in commands])


def _error_from(message: str) -> ResponseError:
    code, _, text = message.partition(" ")
    return _ERRORS[code](text) if code in _ERRORS else ResponseError(message)
