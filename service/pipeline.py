"""Auto-pipelining: requests that arrive in the same turn of the event loop leave in one write on one connection.

Every batch that reads ends in one TIME, the now of its reads. Batches do not wait for one another, so Redis has work
while the replica renders. It goes below redis-py, whose pipeline costs a request more than all the rest of it does
(`make bench` measures both); redis-py still says where the server is and how to be let in.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from redis.exceptions import RedisError, ResponseError

from service.connection import Connection, packed
from service.errors import StoreUnavailable
from service.lane import Reply, ServerDemoted, StoreRefused, carried_out, named, outage_log, refusal_log
from service.scripts import Command

FULL_BATCH_WORK = 32
"""How much work for Redis fills a batch. A full one leaves at once: Redis is busy while the replica reads on."""

_READ_WORK, _CHANGE_WORK = 1, 4
MAX_WAITING = 10_000
_LOOKS_PER_TIMEOUT = 8

_HGETALL = b"*2\r\n$7\r\nHGETALL\r\n$%d\r\n%b\r\n"
_TIME = b"*1\r\n$4\r\nTIME\r\n"

Dial = Callable[[Callable[[Connection], None], Callable[[], None]], Awaitable[Connection]]


class Pipeline:
    """A lane on one connection, opened by `dial` when it is first needed and again after it broke.

    A request waits about `timeout_seconds` at most, in the queue and in flight together. When the connection breaks,
    reads in flight go again once and changes in flight are StoreUnavailable; what had not left goes on the next one.
    """

    def __init__(self, dial: Dial, timeout_seconds: float) -> None:
        self._dial = dial
        self._timeout_seconds = timeout_seconds
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Batch] = deque()
        self._waiting = 0
        self._connection: Connection | None = None
        self._open: set[Connection] = set()
        self._connecting: asyncio.Task[None] | None = None
        self._flush_is_due = False
        self._watch: asyncio.TimerHandle | None = None
        self._outage = outage_log()
        self._refusals = refusal_log()

    async def read(self, key: str) -> tuple[Mapping[bytes, bytes], int]:
        name = key.encode()
        fields, now_ms = await self._submit(_HGETALL % (len(name), name), _A_READ, _READ_WORK)
        if isinstance(fields, ResponseError) or isinstance(now_ms, ResponseError):
            raise named(fields if isinstance(fields, ResponseError) else now_ms)
        return fields, now_ms

    async def change(self, *commands: Command) -> list[Reply]:
        try:
            replies = await carried_out(self._send, commands)
        except StoreRefused as refusal:
            if isinstance(refusal, ServerDemoted):
                self._retire_connection()
            raise self._refusals.begins(refusal) from refusal
        self._refusals.is_over()
        return replies

    async def aclose(self) -> None:
        """Close the connection; what still waits is StoreUnavailable."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._watch is not None:
            self._watch.cancel()
        self._retire_connection()
        self._fail_queue(ConnectionAbortedError("the service is stopping"))
        for connection in tuple(self._open):
            connection.abort(ConnectionAbortedError("the service is stopping"))
            await connection.closed

    def settled(self, batch: "_Batch") -> None:
        self._waiting -= len(batch.asked)
        self._outage.is_over()

    def lost(self, batch: "_Batch", error: Exception) -> None:
        """Its connection broke: reads go again if they have not before, and what was changed nobody knows."""
        again = batch.take_reads(self._loop.time())
        if again.asked:
            self._queue.appendleft(again)
        self._refuse(batch, error)

    def _send(self, commands: Sequence[Command]) -> Awaitable[list[Reply]]:
        return self._submit(packed(commands), len(commands), _CHANGE_WORK * len(commands))

    def _submit(self, packed: bytes, replies: int, work: int) -> asyncio.Future[Any]:
        if self._waiting >= MAX_WAITING:
            raise StoreUnavailable(f"{self._waiting} requests wait already")
        self._waiting += 1
        future = self._loop.create_future()
        if not self._queue or self._queue[-1].work >= FULL_BATCH_WORK:
            self._begin_batch()
        batch = self._queue[-1]
        batch.asked.append((future, packed, replies))
        batch.work += work
        if batch.work >= FULL_BATCH_WORK and self._connection is not None:
            self._flush()
        return future

    def _begin_batch(self) -> None:
        self._queue.append(_Batch(self, self._loop.time() + self._timeout_seconds))
        self._flush_soon()
        if self._watch is None:
            self._watch = self._loop.call_later(self._timeout_seconds / _LOOKS_PER_TIMEOUT, self._give_up_overdue)

    def _flush_soon(self) -> None:
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush_at_the_turns_end)

    def _flush_at_the_turns_end(self) -> None:
        self._flush_is_due = False
        self._flush()

    def _flush(self) -> None:
        if self._connection is None:
            self._connect()
            return
        while self._queue and self._connection.writable:
            self._connection.send(self._queue.popleft())

    def _connect(self) -> None:
        if self._connecting is None and self._queue:
            self._connecting = self._loop.create_task(self._open_connection())

    async def _open_connection(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                self._connection = await self._dial(self._forget, self._flush_soon)
            self._open.add(self._connection)
        except (RedisError, OSError, TimeoutError) as error:
            self._fail_queue(error)
        finally:
            self._connecting = None
        self._flush_soon()

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        if self._connection is connection:
            self._connection = None
            self._flush_soon()

    def _retire_connection(self) -> None:
        if self._connection is not None:
            self._connection.retire()
            self._connection = None

    def _fail_queue(self, error: Exception) -> None:
        while self._queue:
            self._refuse(self._queue.popleft(), error)

    def _refuse(self, batch: "_Batch", error: Exception) -> None:
        self._waiting -= len(batch.asked)
        batch.refuse(self._outage.begins(error))

    def _overdue(self) -> TimeoutError:
        return TimeoutError(f"no answer within {self._timeout_seconds:g} s (SESSION_STORE_TIMEOUT_SECONDS)")

    def _give_up_overdue(self) -> None:
        """Looks now and then while anything waits; a connection that lets a batch grow overdue is broken."""
        now = self._loop.time()
        while self._queue and self._queue[0].deadline <= now:
            self._refuse(self._queue.popleft(), self._overdue())
        for connection in tuple(self._open):
            if connection.is_overdue(now):
                connection.abort(self._overdue())
        self._watch = None
        if self._waiting:
            self._watch = self._loop.call_later(self._timeout_seconds / _LOOKS_PER_TIMEOUT, self._give_up_overdue)


_A_READ = 0
"""In place of a number of replies: one hash, and the instant that it shares with its batch."""


class _Batch:
    """Requests that leave in one write (see connection.Exchange), as (future, packed commands, number of replies)."""

    __slots__ = ("_went_before", "asked", "deadline", "pipeline", "replies", "work")

    def __init__(self, pipeline: Pipeline, deadline: float, *, went_before: bool = False) -> None:
        self.pipeline = pipeline
        self.deadline = deadline
        self.asked: list[tuple[asyncio.Future[Any], bytes, int]] = []
        self.replies: list[Any] = []
        self.work = 0
        self._went_before = went_before

    def pack(self) -> tuple[bytes, int]:
        """What goes out, and how many replies come in."""
        parts = [packed for _, packed, _ in self.asked]
        expected = sum([replies or 1 for _, _, replies in self.asked])
        if self._reads():
            parts.append(_TIME)
            expected += 1
        return b"".join(parts), expected

    def settle(self) -> None:
        now_ms = _instant(self.replies.pop()) if self._reads() else None
        replies = iter(self.replies)
        for future, _, number in self.asked:
            reply = (next(replies), now_ms) if number == _A_READ else [next(replies) for _ in range(number)]
            if not future.done():  # whoever asked may have gone
                future.set_result(reply)
        self.pipeline.settled(self)

    def fail(self, error: Exception) -> None:
        self.pipeline.lost(self, error)

    def take_reads(self, now: float) -> "_Batch":
        """A batch of its reads, if they may go again, which are its own no more."""
        again = _Batch(self.pipeline, self.deadline, went_before=True)
        if not self._went_before and self.deadline > now:
            again.asked = [one for one in self.asked if one[2] == _A_READ]
            self.asked = [one for one in self.asked if one[2] != _A_READ]
        return again

    def _reads(self) -> bool:
        return any(replies == _A_READ for _, _, replies in self.asked)

    def refuse(self, refusal: StoreUnavailable) -> None:
        for future, _, _ in self.asked:
            if not future.done():
                future.set_exception(refusal)


def _instant(time: Any) -> Any:
    """The reply to TIME in milliseconds; an error as it is."""
    return time if isinstance(time, ResponseError) else int(time[0]) * 1000 + int(time[1]) // 1000
