"""Auto-pipelining on one connection: requests of the same turn of the event loop are sent in one write.

Batches do not wait for one another, so Redis works while the process renders responses. The pipeline works below
redis-py, whose own pipeline costs more than all other work of a request (`make bench` measures both).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import cache
from time import perf_counter
from typing import Any

from redis.exceptions import ResponseError

from service.errors import StoreUnavailable
from service.redis_client.batch import Batch, Replication, Request, work_of
from service.redis_client.client import Fields, Read, Reply, replies_or_errors
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
_DEADLINE_CHECKS_PER_TIMEOUT = 8
_ROLE_CHECK_SECONDS = 2

_log = logging.getLogger(__name__)

_Retry = Callable[[Send, Sequence[Command], list[Reply], ScriptCatalog], Awaitable[list[Reply]]]
Connect = Callable[[Callable[[Connection], None], Callable[[], None]], Awaitable[Connection]]
"""Opens a connection. Its arguments are called when the connection is lost, and when it can be written to again."""


class Pipeline:
    """A RedisClient on one connection, opened on first use and reopened after a failure.

    A request waits at most about `timeout_seconds`, in the queue and in flight together. After a lost connection,
    reads in flight are sent once more and writes in flight are StoreUnavailable.

    With `replication`, each batch ends with WAIT and the next batch waits for it; use such a pipeline for writes only.
    Calls `on_demoted` if the server is no longer a primary: it checks the role every two seconds, before a batch.
    """

    def __init__(
        self,
        connect: Connect,
        timeout_seconds: float,
        monitor: StoreMonitor,
        scripts: ScriptCatalog,
        replication: Replication | None = None,
        on_demoted: Callable[[], None] = lambda: None,
    ) -> None:
        self._open_connection = connect
        self._timeout_seconds = timeout_seconds
        self._monitor = monitor
        self._outage = monitor.outage
        self._rejections = monitor.rejections
        self._scripts = scripts
        self._replication = replication
        self._on_demoted = on_demoted
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Batch] = deque()
        self._batches_in_flight = 0
        self._requests_waiting = 0
        self._connection: Connection | None = None
        self._connections: set[Connection] = set()
        """The current one, and retired ones with replies still in flight."""
        self._connecting: asyncio.Task[None] | None = None
        self._role_checked_at = 0.0
        self._is_flush_scheduled = False
        self._deadline_check: asyncio.TimerHandle | None = None
        self._is_stopping = False

    @property
    def supports_multi_slot(self) -> bool:
        return True

    async def read_hash(self, key: str, fields: Fields) -> Read:
        encoded_key = key.encode()
        values, now_ms = await self._submit(_hmget(fields) % (len(encoded_key), encoded_key), 1, 1, is_read=True)
        return self._without_error(values), self._without_error(now_ms)

    async def read_hashes(self, keys: Sequence[str], fields: Fields) -> list[Read]:
        template, encoded_keys = _hmget(fields), [key.encode() for key in keys]
        packed_reads = b"".join([template % (len(key), key) for key in encoded_keys])
        replies, now_ms = await self._submit(packed_reads, len(keys), len(keys), is_read=True)
        hashes = replies if len(keys) > 1 else [replies]
        return [(self._without_error(values), self._without_error(now_ms)) for values in hashes]

    async def query(self, *commands: Command) -> list[Reply]:
        try:
            return await send_with_script_retry(self.send_read, commands, self._scripts)
        except CommandRejected as rejection:
            self._record(rejection)
            raise

    def execute(self, *commands: Command) -> Coroutine[Any, Any, list[Reply]]:
        return self._write(retry_missing_scripts, commands)

    def execute_ordered(self, *commands: Command) -> Coroutine[Any, Any, list[Reply]]:
        return self._write(retry_missing_scripts_in_order, commands)

    async def broadcast(self, *commands: Command) -> dict[str, list[Reply]]:
        return {"": await replies_or_errors(self.send_read(commands), len(commands))}

    async def aclose(self) -> None:
        """Close the connection. Waiting requests are StoreUnavailable."""
        self._is_stopping = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._deadline_check is not None:
            self._deadline_check.cancel()
        error = ConnectionAbortedError("the service is stopping")
        self._fail_queue(error)
        for connection in tuple(self._connections):
            connection.abort(error)
            await connection.closed

    def retire(self) -> None:
        """Close the connection after the last reply in flight. The next request opens a new one."""
        if self._connection is not None:
            self._connection.retire()
            self._connection = None

    def leave_server(self, error: Exception) -> None:
        """Drop the connection and open another one. Reads in flight are sent again."""
        if self._connection is not None:
            self._connection.abort(error)

    def send(self, commands: Sequence[Command]) -> Awaitable[list[Reply]]:
        """Send commands once, and return their replies, errors included."""
        return self._submit(packed(commands), len(commands), work_of(commands), is_read=False)

    async def send_read(self, commands: Sequence[Command]) -> list[Reply]:
        """The same for commands that may be sent again after a lost connection."""
        replies, _ = await self._submit(packed(commands), len(commands), work_of(commands), is_read=True)
        return replies if len(commands) > 1 else [replies]

    async def _write(self, retry: _Retry, commands: Sequence[Command]) -> list[Reply]:
        # As send_with_script_retry does, but without another coroutine for the usual case.
        connection = self._connection
        try:
            replies = await self.send(commands) if commands else []
            if has_error(replies):
                replies = await retry(self.send, commands, replies, self._scripts)
        except CommandRejected as rejection:
            if isinstance(rejection, ServerDemoted) and connection in (None, self._connection):
                self.retire()
                self._on_demoted()
            self._record(rejection)
            raise
        self._rejections.record_success()
        return replies

    def _without_error(self, reply: Reply) -> Reply:
        if isinstance(reply, ResponseError):
            raise self._record(to_client_error(reply))
        return reply

    def _record(self, error: Exception) -> Exception:
        return self._rejections.record_failure(error) if isinstance(error, CommandRejected) else error

    def _submit(self, packed: bytes, commands: int, work: int, *, is_read: bool) -> asyncio.Future[Any]:
        if self._requests_waiting >= MAX_WAITING or self._is_stopping:
            raise StoreUnavailable("the service is stopping" if self._is_stopping else "too many requests are waiting")
        self._requests_waiting += 1
        if not self._queue or self._queue[-1].is_full:
            self._begin_batch()
        batch = self._queue[-1]
        request = Request(self._loop.create_future(), packed, commands, work, is_read)
        batch.add(request)
        if batch.is_full and self._connection is not None:
            self._flush()
        return request.future

    def _begin_batch(self) -> None:
        deadline = self._loop.time() + self._timeout_seconds
        self._queue.append(Batch(deadline, self._batch_settled, self._batch_lost, self._scripts, self._replication))
        self._schedule_flush()
        if self._deadline_check is None:
            self._schedule_deadline_check()

    def _batch_settled(self, batch: Batch) -> None:
        self._monitor.observe_round_trip(perf_counter() - batch.sent_at, len(batch.requests))
        if not batch.is_abandoned:
            self._requests_waiting -= len(batch.requests)
        self._batches_in_flight -= 1
        if self._replication is not None:
            self._schedule_flush()

    def _batch_lost(self, batch: Batch, error: Exception) -> None:
        """Send reads once more and fail writes: Redis may or may not have executed them."""
        self._batches_in_flight -= 1
        if isinstance(error, ServerDemoted):
            self._on_demoted()
        if batch.has_reads and not (batch.is_abandoned or batch.is_retry or self._is_stopping):
            self._queue.appendleft(batch.take_reads())
            self._schedule_flush()
        self._abandon(batch, error)

    def _abandon(self, batch: Batch, error: Exception) -> None:
        if not batch.is_abandoned:
            self._requests_waiting -= len(batch.requests)
            batch.abandon(self._outage.record_failure(error))

    def _fail_queue(self, error: Exception) -> None:
        while self._queue:
            self._abandon(self._queue.popleft(), error)

    def _schedule_flush(self) -> None:
        if not self._is_flush_scheduled:
            self._is_flush_scheduled = True
            self._loop.call_soon(self._scheduled_flush)

    def _scheduled_flush(self) -> None:
        self._is_flush_scheduled = False
        self._flush()

    def _flush(self) -> None:
        if self._connection is not None and self._loop.time() - self._role_checked_at > _ROLE_CHECK_SECONDS:
            self._check_role(self._connection)
        if self._connection is None:
            self._start_connecting()
            return
        while self._queue and self._connection.writable and not self._is_waiting_for_replicas():
            batch = self._queue.popleft()
            batch.sent_at = perf_counter()
            self._batches_in_flight += 1
            self._connection.send(batch)

    def _is_waiting_for_replicas(self) -> bool:
        """During WAIT, Redis does nothing else on a connection: later requests share the next batch and its WAIT."""
        return self._replication is not None and self._batches_in_flight > 0

    def _check_role(self, connection: Connection) -> None:
        """Reconnect instead if the server was never a primary: another server may have its address by now."""
        self._role_checked_at = self._loop.time()
        if connection.is_to_a_primary:
            connection.send(RoleCheck())
        else:
            self.retire()

    def _start_connecting(self) -> None:
        if self._connecting is None and self._queue and not self._is_stopping:
            self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                self._connection = await self._open_connection(self._connection_lost, self._schedule_flush)
            self._connections.add(self._connection)
            self._role_checked_at = self._loop.time()
        except TimeoutError:
            self._fail_queue(self._timeout_error())
        except Exception as error:  # without a connection, no request can be answered
            self._fail_queue(error)
        finally:
            self._connecting = None
        self._schedule_flush()

    def _connection_lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if self._connection is connection:
            self._connection = None
            self._schedule_flush()

    def _timeout_error(self) -> TimeoutError:
        return TimeoutError(f"no reply within {self._timeout_seconds:g} s (SESSION_STORE_TIMEOUT_SECONDS)")

    def _schedule_deadline_check(self) -> None:
        seconds = self._timeout_seconds / _DEADLINE_CHECKS_PER_TIMEOUT
        self._deadline_check = self._loop.call_later(seconds, self._check_deadlines)

    def _check_deadlines(self) -> None:
        """Check now and again later, also after an unexpected error."""
        try:
            self._fail_overdue(self._loop.time())
        except Exception:
            _log.exception("deadlines of requests to Redis cannot be checked and will be checked again")
        self._deadline_check = None
        if self._requests_waiting or any(connection.is_busy for connection in self._connections):
            self._schedule_deadline_check()

    def _fail_overdue(self, now: float) -> None:
        """Fail overdue requests. Drop connections on which a batch has been in flight for the whole timeout."""
        while self._queue and self._queue[0].deadline <= now:
            self._abandon(self._queue.popleft(), self._timeout_error())
        for connection in tuple(self._connections):
            for batch in connection.overdue(now):
                self._abandon(batch, self._timeout_error())
            if connection.is_stuck(now - self._timeout_seconds):
                connection.abort(self._timeout_error())


@cache
def _hmget(fields: Fields) -> bytes:
    """The packed HMGET, with placeholders for the key's length and the key."""
    names = b"".join(b"$%d\r\n%b\r\n" % (len(name), name) for name in fields)
    return b"*%d\r\n$5\r\nHMGET\r\n$%%d\r\n%%b\r\n%b" % (len(fields) + 2, names)
