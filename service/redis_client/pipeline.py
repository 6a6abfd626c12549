"""Auto-pipelining: requests that arrive in the same turn of the event loop leave in one write on one connection.

Every batch that reads ends in one TIME, the now of its reads. Batches do not wait for one another, so Redis has work
while the replica renders. It goes below redis-py, whose pipeline costs a request more than all the rest of it does
(`make bench` measures both); redis-py still says where the server is and how to be let in.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import cache
from time import perf_counter
from typing import Any

from redis.exceptions import ResponseError

from service.errors import StoreUnavailable
from service.redis_client.batch import Batch, Replication, Request, work_of
from service.redis_client.client import Fields, Read, Reply, reply_or_error_each
from service.redis_client.connection import Connection, RoleCheck, packed
from service.redis_client.errors import CommandRejected, ServerDemoted, to_client_error
from service.redis_client.monitor import StoreMonitor
from service.redis_client.script_retry import (
    Send,
    has_error,
    retry_missing_scripts,
    retry_missing_scripts_in_order,
    send_with_script_retry,
)
from service.redis_client.scripts import Command, ScriptCatalog

MAX_WAITING = 10_000
_LOOKS_PER_TIMEOUT = 8
_LOOK_SECONDS = 2

MakeGood = Callable[[Send, Sequence[Command], list[Reply], ScriptCatalog], Awaitable[list[Reply]]]
Dial = Callable[[Callable[[Connection], None], Callable[[], None]], Awaitable[Connection]]


class Pipeline:
    """A lane on one connection, opened by `dial` when it is first needed and again after it broke.

    A request waits about `timeout_seconds` at most, in the queue and in flight together. When the connection breaks,
    reads in flight go again once and changes in flight are StoreUnavailable; what had not left goes on the next one.

    With `replication` every batch waits for replicas, in the same round trip, and the next for it: it is for changes.
    Whether the server is still the primary is looked at every other second, in front of a batch. `on_demoted` is told
    where it is not, by that look or by a change that it refused.
    """

    def __init__(
        self,
        dial: Dial,
        timeout_seconds: float,
        watch: StoreMonitor,
        scripts: ScriptCatalog,
        replication: Replication | None = None,
        on_demoted: Callable[[], None] = lambda: None,
    ) -> None:
        self._dial = dial
        self._timeout_seconds = timeout_seconds
        self._scripts = scripts
        self._replication = replication
        self._on_demoted = on_demoted
        self._looked_at = 0.0
        self._under_way = 0
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Batch] = deque()
        self._waiting = 0
        self._connection: Connection | None = None
        self._open: set[Connection] = set()
        self._connecting: asyncio.Task[None] | None = None
        self._flush_is_due = False
        self._watch: asyncio.TimerHandle | None = None
        self._stopping = False
        self._store_watch = watch
        self._outage = watch.outage
        self._refusals = watch.rejections

    @property
    def supports_multi_slot(self) -> bool:
        return True

    async def read_hash(self, key: str, fields: Fields) -> Read:
        name = key.encode()
        values, now_ms = await self._submit(_hmget(fields) % (len(name), name), 1, 1, reads=True)
        return self._sound(values), self._sound(now_ms)

    async def read_hashes(self, keys: Sequence[str], fields: Fields) -> list[Read]:
        template, names = _hmget(fields), [key.encode() for key in keys]
        asked = b"".join([template % (len(name), name) for name in names])
        replies, now_ms = await self._submit(asked, len(names), len(names), reads=True)
        found = replies if len(names) > 1 else [replies]
        return [(self._sound(values), self._sound(now_ms)) for values in found]

    async def query(self, *commands: Command) -> list[Reply]:
        try:
            return await send_with_script_retry(self.send_to_read, commands, self._scripts)
        except CommandRejected as refusal:
            self._told(refusal)
            raise

    def execute(self, *commands: Command) -> Coroutine[Any, Any, list[Reply]]:
        return self._changed(retry_missing_scripts, commands)

    def execute_ordered(self, *commands: Command) -> Coroutine[Any, Any, list[Reply]]:
        return self._changed(retry_missing_scripts_in_order, commands)

    async def broadcast(self, *commands: Command) -> dict[str, list[Reply]]:
        return {"": await reply_or_error_each(self.send_to_read(commands), len(commands))}

    async def aclose(self) -> None:
        """Close the connection; what still waits is StoreUnavailable."""
        self._stopping = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._watch is not None:
            self._watch.cancel()
        error = ConnectionAbortedError("the service is stopping")
        self._fail_queue(error)
        for connection in tuple(self._open):
            connection.abort(error)
            await connection.closed

    async def _changed(self, make_good: MakeGood, commands: Sequence[Command]) -> list[Reply]:
        """As `carried_out` does, without a coroutine more where all goes well."""
        connection = self._connection
        try:
            replies = await self.send(commands) if commands else []
            if has_error(replies):
                replies = await make_good(self.send, commands, replies, self._scripts)
        except CommandRejected as refusal:
            if isinstance(refusal, ServerDemoted) and connection in (None, self._connection):
                self._retire_connection()
                self._on_demoted()
            self._told(refusal)
            raise
        self._refusals.record_success()
        return replies

    def _sound(self, reply: Reply) -> Reply:
        """The same; an error is raised in the names of the seam."""
        if isinstance(reply, ResponseError):
            raise self._told(to_client_error(reply))
        return reply

    def _told(self, error: Exception) -> Exception:
        """The same, once it is in the log if it is a refusal of Redis's."""
        return self._refusals.record_failure(error) if isinstance(error, CommandRejected) else error

    def send(self, commands: Sequence[Command]) -> Awaitable[list[Reply]]:
        """The replies, errors among them, to what is sent once."""
        return self._submit(packed(commands), len(commands), work_of(commands), reads=False)

    async def send_to_read(self, commands: Sequence[Command]) -> list[Reply]:
        """The replies, errors among them, to what may be sent again where the connection breaks."""
        replies, _ = await self._submit(packed(commands), len(commands), work_of(commands), reads=True)
        return replies if len(commands) > 1 else [replies]

    def _submit(self, packed: bytes, commands: int, work: int, *, reads: bool) -> asyncio.Future[Any]:
        if self._waiting >= MAX_WAITING or self._stopping:
            raise StoreUnavailable("the service is stopping" if self._stopping else "too many requests wait already")
        self._waiting += 1
        if not self._queue or self._queue[-1].is_full:
            self._begin_batch()
        batch = self._queue[-1]
        request = Request(self._loop.create_future(), packed, commands, work, reads)
        batch.add(request)
        if batch.is_full and self._connection is not None:
            self._flush()
        return request.future

    def _begin_batch(self) -> None:
        deadline = self._loop.time() + self._timeout_seconds
        self._queue.append(Batch(deadline, self._settled, self._lost, self._scripts, self._replication))
        self._flush_soon()
        if self._watch is None:
            self._watch = self._loop.call_later(self._timeout_seconds / _LOOKS_PER_TIMEOUT, self._give_up_overdue)

    def _settled(self, batch: Batch) -> None:
        self._store_watch.observe_round_trip(perf_counter() - batch.sent_at, len(batch.requests))
        if not batch.given_up:
            self._waiting -= len(batch.requests)
        self._under_way -= 1
        if self._replication is not None:
            self._flush_soon()

    def _lost(self, batch: Batch, error: Exception) -> None:
        """Its connection broke: reads go again if they have not before, and what was changed nobody knows."""
        self._under_way -= 1
        if isinstance(error, ServerDemoted):
            self._on_demoted()
        if batch.reads and not (batch.given_up or batch.went_before or self._stopping):
            self._queue.appendleft(batch.take_reads())
            self._flush_soon()
        self._refuse(batch, error)

    def _refuse(self, batch: Batch, error: Exception) -> None:
        if not batch.given_up:
            self._waiting -= len(batch.requests)
            batch.give_up(self._outage.record_failure(error))

    def _fail_queue(self, error: Exception) -> None:
        while self._queue:
            self._refuse(self._queue.popleft(), error)

    def _flush_soon(self) -> None:
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush_at_the_turns_end)

    def _flush_at_the_turns_end(self) -> None:
        self._flush_is_due = False
        self._flush()

    def _flush(self) -> None:
        if self._connection is not None and self._loop.time() - self._looked_at > _LOOK_SECONDS:
            self._look_at_the_role(self._connection)
        if self._connection is None:
            self._connect()
            return
        while self._queue and self._connection.writable and not self._has_to_wait():
            batch = self._queue.popleft()
            batch.sent_at = perf_counter()
            self._under_way += 1
            self._connection.send(batch)

    def _has_to_wait(self) -> bool:
        """Redis does nothing for a connection while that waits for replicas: what comes meanwhile leaves together."""
        return self._replication is not None and self._under_way > 0

    def _look_at_the_role(self, connection: Connection) -> None:
        """Where the server has never been a primary, another may stand at its address by now."""
        self._looked_at = self._loop.time()
        if connection.is_to_a_primary:
            connection.send(RoleCheck())
        else:
            self._retire_connection()

    def _connect(self) -> None:
        if self._connecting is None and self._queue and not self._stopping:
            self._connecting = self._loop.create_task(self._open_connection())

    async def _open_connection(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                self._connection = await self._dial(self._forget, self._flush_soon)
            self._open.add(self._connection)
            self._looked_at = self._loop.time()
        except TimeoutError:
            self._fail_queue(self._overdue())
        except Exception as error:  # whatever keeps it from being opened keeps every request from being answered
            self._fail_queue(error)
        finally:
            self._connecting = None
        self._flush_soon()

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        if self._connection is connection:
            self._connection = None
            self._flush_soon()

    def retire(self) -> None:
        """Let go of the connection once what is in flight has been answered."""
        self._retire_connection()

    def leave_server(self, error: Exception) -> None:
        """Go to whichever server it is now; reads in flight go again there."""
        if self._connection is not None:
            self._connection.abort(error)

    def _retire_connection(self) -> None:
        if self._connection is not None:
            self._connection.retire()
            self._connection = None

    def _overdue(self) -> TimeoutError:
        return TimeoutError(f"no answer within {self._timeout_seconds:g} s (SESSION_STORE_TIMEOUT_SECONDS)")

    def _give_up_overdue(self) -> None:
        """Looks now and then while anything waits. A connection that has held a batch for all the time is broken."""
        now = self._loop.time()
        while self._queue and self._queue[0].deadline <= now:
            self._refuse(self._queue.popleft(), self._overdue())
        for connection in tuple(self._open):
            for batch in connection.overdue(now):
                self._refuse(batch, self._overdue())
            if connection.is_stuck(now - self._timeout_seconds):
                connection.abort(self._overdue())
        self._watch = None
        if self._waiting or any(connection.is_busy for connection in self._open):
            self._watch = self._loop.call_later(self._timeout_seconds / _LOOKS_PER_TIMEOUT, self._give_up_overdue)


@cache
def _hmget(fields: Fields) -> bytes:
    """The packed command, for a key's length and the key to be put in."""
    names = b"".join(b"$%d\r\n%b\r\n" % (len(name), name) for name in fields)
    return b"*%d\r\n$5\r\nHMGET\r\n$%%d\r\n%%b\r\n%b" % (len(fields) + 2, names)
