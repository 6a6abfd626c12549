"""One connection to Redis as an asyncio protocol: writes go out, replies are matched to them in order."""

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
    """One write and the replies it brings: `settle` is called when all are there, `fail` when they will not come."""

    deadline: float
    replies: list[Any]

    def pack(self) -> tuple[bytes, int]: ...

    def settle(self) -> None: ...

    def fail(self, error: Exception) -> None: ...


class _Sent(NamedTuple):
    exchange: Any
    expected: int
    sent_at: float


class Connection(asyncio.Protocol):
    """Speaks RESP on a transport; replies to commands are bytes, ints, lists, dicts and ResponseErrors."""

    def __init__(self, on_lost: Callable[["Connection"], None], on_writable: Callable[[], None]) -> None:
        self._on_lost = on_lost
        self._on_writable = on_writable
        self._reader = hiredis.Reader(replyError=_error_from, notEnoughData=_INCOMPLETE)
        self._in_flight: deque[_Sent] = deque()
        self._transport: asyncio.Transport | None = None
        self._retired = False
        self._end: Exception | None = None
        self.writable = True
        self.is_to_a_primary = False
        """Whether the server said so when it let us in."""
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self._loop.create_future()

    @property
    def is_busy(self) -> bool:
        return bool(self._in_flight)

    def is_stuck(self, since: float) -> bool:
        """Whether what it sent at that time (of the event loop's clock) or before is still unanswered."""
        return self.is_busy and self._in_flight[0].sent_at <= since

    def overdue(self, now: float) -> list[Any]:
        """What is in flight and past its deadline."""
        return [sent.exchange for sent in self._in_flight if sent.exchange.deadline <= now]

    def send(self, exchange: Exchange) -> None:
        assert self._transport is not None
        packed, expected = exchange.pack()
        self._in_flight.append(_Sent(exchange, expected, self._loop.time()))
        self._transport.write(packed)

    def retire(self) -> None:
        """Close it once what is in flight has been answered."""
        self._retired = True
        self._close_if_idle()

    def abort(self, error: Exception) -> None:
        """Drop it at once; what is in flight fails with `error`."""
        self._end = error
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            self._match_replies()
        except ServerDemoted as error:  # what it still says may be stale
            self.abort(error)
        except Exception as error:  # what is not RESP or was not asked for, and what follows, can no more be matched
            _log.exception("a connection to Redis is given up: its replies do not fit what was sent")
            self.abort(error)

    def connection_lost(self, exc: Exception | None) -> None:
        error = self._end or exc or ConnectionResetError("Redis closed the connection")
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
            exchange, expected, _ = self._in_flight[0]
            exchange.replies.append(reply)
            if len(exchange.replies) == expected:
                exchange.settle()
                self._in_flight.popleft()
        if self._retired:
            self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._transport is not None and not self._in_flight:
            self._transport.close()


class RoleCheck:
    """An exchange (see connection.Exchange) that ends its connection where the server is no primary any more."""

    deadline = float("inf")

    def __init__(self) -> None:
        self.replies: list[Any] = []

    def pack(self) -> tuple[bytes, int]:
        return packed([("ROLE",)]), 1

    def settle(self) -> None:
        """Raises ServerDemoted. An account that may not ask is none the wiser."""
        (role,) = self.replies
        if not isinstance(role, ResponseError) and role[0] != b"master":
            raise ServerDemoted("the server is a primary no more")

    def fail(self, error: Exception) -> None:
        """Whoever is behind it on the connection is told."""


def packed(commands: Sequence[Command]) -> bytes:
    pack: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]
    return pack(commands[0]) if len(commands) == 1 else b"".join([pack(command) for command in commands])


def _error_from(message: str) -> ResponseError:
    code, _, text = message.partition(" ")
    return _ERRORS[code](text) if code in _ERRORS else ResponseError(message)
