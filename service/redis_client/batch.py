"""A batch: requests that are sent to Redis in one write."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from service.errors import StoreUnavailable
from service.redis_client.connection import packed
from service.redis_client.errors import ServerDemoted, UnderReplicated
from service.redis_client.scripts import Command, ScriptCatalog
from service.timestamps import ms_from_time_reply

FULL = 32
"""A batch with this much work is sent at once, so that Redis works while the process parses further requests."""

_SCRIPT_WORK = 4
_TIME = b"*1\r\n$4\r\nTIME\r\n"


class Request(NamedTuple):
    """The packed commands of one caller. The future receives a list of replies.

    For a read it receives a pair: the replies, or the bare reply to a single command, and the time of the batch in ms.
    """

    future: asyncio.Future[Any]
    packed: bytes
    commands: int
    work: int
    is_read: bool


class Replication(NamedTuple):
    """How many replicas must acknowledge a write (WAIT), and the time limit in milliseconds."""

    replicas: int
    timeout_ms: int

    def error_for(self, acknowledged: Any, replies: Sequence[Any], scripts: ScriptCatalog) -> StoreUnavailable | None:
        """Convert the reply to WAIT. None if the write is replicated, failed, or changed nothing."""
        if any(isinstance(reply, ResponseError) for reply in replies) or all(map(scripts.wrote_nothing, replies)):
            return None
        if isinstance(acknowledged, ResponseError):  # only a replica rejects WAIT
            return ServerDemoted(str(acknowledged))
        if acknowledged >= self.replicas:
            return None
        counts = f"{acknowledged} of {self.replicas} replicas acknowledged a write within {self.timeout_ms} ms"
        return UnderReplicated(f"{counts} (SESSION_WAIT_REPLICAS); the write was executed", replies)


def work_of(commands: Sequence[Command]) -> int:
    """The cost of commands for Redis, in reads of one hash."""
    return sum([_SCRIPT_WORK if command[0] == "EVALSHA" else 1 for command in commands])


class Batch:
    """Requests in sending order, as one exchange (see connection.Exchange). They share the first one's deadline."""

    def __init__(
        self,
        deadline: float,
        on_settled: Callable[["Batch"], None],
        on_lost: Callable[["Batch", Exception], None],
        scripts: ScriptCatalog,
        replication: Replication | None = None,
    ) -> None:
        self.deadline = deadline
        self._scripts = scripts
        self._replication = replication
        self._on_settled = on_settled
        self._on_lost = on_lost
        self.sent_at = 0.0
        self.requests: list[Request] = []
        self.replies: list[Any] = []
        self.work = 0
        self.has_reads = False
        self.is_retry = False
        self.is_abandoned = False

    @property
    def is_full(self) -> bool:
        """Never true with replication: one WAIT serves all requests that arrive until the batch is sent."""
        return self.work >= FULL and self._replication is None

    def add(self, request: Request) -> None:
        self.requests.append(request)
        self.work += request.work
        self.has_reads = self.has_reads or request.is_read

    def pack(self) -> tuple[bytes, int]:
        parts = [request.packed for request in self.requests]
        expected_replies = sum([request.commands for request in self.requests])
        if self._replication is not None:
            parts.append(packed([("WAIT", *self._replication)]))
            expected_replies += 1
        if self.has_reads:
            parts.append(_TIME)
            expected_replies += 1
        return b"".join(parts), expected_replies

    def settle(self) -> None:
        now_ms = _ms_or_error(self.replies.pop()) if self.has_reads else None
        acknowledged = self.replies.pop() if self._replication is not None else None
        replies = iter(self.replies)
        for future, _, commands, _, is_read in self.requests:
            reply = next(replies) if is_read and commands == 1 else [next(replies) for _ in range(commands)]
            if future.done():  # the caller was cancelled, or its deadline passed
                continue
            error = None
            if self._replication is not None and not is_read:
                error = self._replication.error_for(acknowledged, reply, self._scripts)
            if error is None:
                future.set_result((reply, now_ms) if is_read else reply)
            else:
                future.set_exception(error)
        self._on_settled(self)

    def fail(self, error: Exception) -> None:
        self._on_lost(self, error)

    def abandon(self, error: StoreUnavailable) -> None:
        """Fail all requests that are still waiting. Later replies are dropped."""
        self.is_abandoned = True
        for request in self.requests:
            if not request.future.done():
                request.future.set_exception(error)

    def take_reads(self) -> "Batch":
        """Move the reads to a new batch, to be sent once more."""
        retry = Batch(self.deadline, self._on_settled, self._on_lost, self._scripts)
        retry.requests = [request for request in self.requests if request.is_read]
        retry.has_reads = retry.is_retry = True
        retry.work = FULL  # takes no further requests: they have a later deadline
        self.requests = [request for request in self.requests if not request.is_read]
        return retry


def _ms_or_error(time_reply: Any) -> Any:
    return time_reply if isinstance(time_reply, ResponseError) else ms_from_time_reply(time_reply)
