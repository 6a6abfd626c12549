"""A batch: requests that leave for Redis in one write, and how their replies find them."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from service.errors import StoreUnavailable
from service.redis_client.connection import packed
from service.redis_client.errors import ServerDemoted, UnderReplicated
from service.redis_client.scripts import Command, ScriptCatalog

FULL = 32
"""How much work for Redis fills a batch. A full one leaves at once: Redis is busy while the replica reads on."""

_SCRIPT_WORK = 4
_TIME = b"*1\r\n$4\r\nTIME\r\n"


class Request(NamedTuple):
    """Packed commands and who waits for their replies: a list of them.

    One that only reads is given them with its batch's TIME, and where it is one command the reply as it is.
    """

    future: asyncio.Future[Any]
    packed: bytes
    commands: int
    work: int
    reads: bool


class Replication(NamedTuple):
    """How many replicas must have what was changed before it is answered, and how long they may take for it."""

    replicas: int
    milliseconds: int

    def fault(self, acknowledged: Any, replies: Sequence[Any], scripts: ScriptCatalog) -> StoreUnavailable | None:
        """What the reply to WAIT means for a request that was answered so.

        None where all is well, where nothing was written, and where an error says already what is the matter.
        """
        if any(isinstance(reply, ResponseError) for reply in replies) or all(map(scripts.wrote_nothing, replies)):
            return None
        if isinstance(acknowledged, ResponseError):  # only a replica cannot wait for replicas
            return ServerDemoted(str(acknowledged))
        if acknowledged >= self.replicas:
            return None
        counted = f"{acknowledged} of {self.replicas} replicas had a change within {self.milliseconds} ms"
        return UnderReplicated(f"{counted} (SESSION_WAIT_REPLICAS); it has been made", replies)


def work_of(commands: Sequence[Command]) -> int:
    """How much work for Redis commands are, where reading a session is 1."""
    return sum([_SCRIPT_WORK if command[0] == "EVALSHA" else 1 for command in commands])


class Batch:
    """Requests in the order of their leaving (see connection.Exchange); they share the deadline of the first.

    `on_settled` and `on_lost` are told when it has been answered, and when it will not be.
    """

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
        self.sent_at = 0.0
        self._on_settled = on_settled
        self._on_lost = on_lost
        self.requests: list[Request] = []
        self.replies: list[Any] = []
        self.work = 0
        self.reads = False
        self.went_before = False
        self.given_up = False

    @property
    def is_full(self) -> bool:
        """One that waits for replicas takes whoever comes until it leaves: one wait serves them all."""
        return self.work >= FULL and self._replication is None

    def add(self, request: Request) -> None:
        self.requests.append(request)
        self.work += request.work
        self.reads = self.reads or request.reads

    def pack(self) -> tuple[bytes, int]:
        """What goes out, and how many replies come in."""
        parts = [request.packed for request in self.requests]
        expected = sum([request.commands for request in self.requests])
        if self._replication is not None:
            parts.append(packed([("WAIT", *self._replication)]))
            expected += 1
        if self.reads:
            parts.append(_TIME)
            expected += 1
        return b"".join(parts), expected

    def settle(self) -> None:
        now_ms = _instant(self.replies.pop()) if self.reads else None
        acknowledged = self.replies.pop() if self._replication is not None else None
        replies = iter(self.replies)
        for future, _, commands, _, reads in self.requests:
            reply = next(replies) if reads and commands == 1 else [next(replies) for _ in range(commands)]
            if future.done():  # whoever asked has gone, or been told that it took too long
                continue
            fault = (
                None
                if self._replication is None or reads
                else self._replication.fault(acknowledged, reply, self._scripts)
            )
            if fault is None:
                future.set_result((reply, now_ms) if reads else reply)
            else:
                future.set_exception(fault)
        self._on_settled(self)

    def fail(self, error: Exception) -> None:
        self._on_lost(self, error)

    def give_up(self, refusal: StoreUnavailable) -> None:
        """Refuse everyone who still waits; replies that come all the same are for nobody."""
        self.given_up = True
        for request in self.requests:
            if not request.future.done():
                request.future.set_exception(refusal)

    def take_reads(self) -> "Batch":
        """A batch of its reads, to go once more; they are its own no longer."""
        again = Batch(
            self.deadline, self._on_settled, self._on_lost, self._scripts
        )  # what only reads waits for no replica
        again.requests = [request for request in self.requests if request.reads]
        again.reads = again.went_before = True
        again.work = FULL  # whoever comes now has time of its own
        self.requests = [request for request in self.requests if not request.reads]
        return again


def _instant(time: Any) -> Any:
    """The reply to TIME in milliseconds; an error as it is."""
    return time if isinstance(time, ResponseError) else int(time[0]) * 1000 + int(time[1]) // 1000
