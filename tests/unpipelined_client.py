"""A lane that makes a round trip of its own for each request, through redis-py.

Tests of the HTTP layer run on it, over fakes; and it is what auto-pipelining is held against in the benchmark.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from time import perf_counter
from typing import TypeVar

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from service.errors import StoreUnavailable
from service.redis_client.client import Fields, Read, Reply, replies_or_errors
from service.redis_client.errors import CommandRejected, ServerDemoted
from service.redis_client.monitor import StoreMonitor
from service.redis_client.script_retry import retry_missing_scripts_in_order, send_with_script_retry
from service.redis_client.scripts import Command
from service.sessions.scripts import SCRIPTS
from service.timestamps import ms_from_time_reply

_T = TypeVar("_T")


class UnpipelinedClient:
    """A call to Redis for each request; `timeout_seconds` bounds it with all its waiting."""

    def __init__(self, client: Redis, timeout_seconds: float, watch: StoreMonitor) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds
        self._watch = watch
        self._outage = watch.outage
        self._refusals = watch.rejections

    @property
    def supports_multi_slot(self) -> bool:
        return True

    async def read_hash(self, key: str, fields: Fields) -> Read:
        ((values, now_ms),) = await self.read_hashes([key], fields)
        return values, now_ms

    async def read_hashes(self, keys: Sequence[str], fields: Fields) -> list[Read]:
        looks: list[Command] = [("HMGET", key, *fields) for key in keys]
        *found, now = await self.query(*looks, ("TIME",))
        now_ms = ms_from_time_reply(now)
        return [(values, now_ms) for values in found]

    async def query(self, *commands: Command) -> list[Reply]:
        try:
            return await self._told(send_with_script_retry(self._send, commands, SCRIPTS))
        except _ConnectionLost:
            return await self._told(send_with_script_retry(self._send, commands, SCRIPTS))

    async def execute(self, *commands: Command) -> list[Reply]:
        return await self._changed(send_with_script_retry(self._send, commands, SCRIPTS))

    async def execute_ordered(self, *commands: Command) -> list[Reply]:
        return await self._changed(self._in_order(commands))

    async def broadcast(self, *commands: Command) -> dict[str, list[Reply]]:
        return {"": await replies_or_errors(self._bounded(self._send(commands)), len(commands))}

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _in_order(self, commands: Sequence[Command]) -> list[Reply]:
        return await retry_missing_scripts_in_order(self._send, commands, await self._send(commands), SCRIPTS)

    async def _changed(self, answer: Awaitable[list[Reply]]) -> list[Reply]:
        replies = await self._told(answer)
        self._refusals.record_success()
        return replies

    async def _send(self, commands: Sequence[Command]) -> list[Reply]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        started = perf_counter()
        replies: list[Reply] = await pipeline.execute(raise_on_error=False)
        self._watch.observe_round_trip(perf_counter() - started, 1)
        return replies

    async def _told(self, answer: Awaitable[_T]) -> _T:
        """The same, with a refusal of Redis's in the log; a server that was demoted is not asked again."""
        try:
            return await self._bounded(answer)
        except CommandRejected as refusal:
            if isinstance(refusal, ServerDemoted):
                await self._leave_server()
            self._refusals.record_failure(refusal)
            raise

    async def _leave_server(self) -> None:
        """Close every connection, those in use once they are not: redis-py breaks over one closed while it connects."""
        pool = self._client.connection_pool
        for connection in pool._in_use_connections:
            connection.mark_for_reconnect()  # type: ignore[no-untyped-call]
        await pool.disconnect(inuse_connections=False)

    async def _bounded(self, answer: Awaitable[_T]) -> _T:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                replies = await answer
        except RedisConnectionError as error:
            raise _ConnectionLost(self._outage.record_failure(error).cause) from error
        except TimeoutError as error:
            overdue = TimeoutError(f"no reply within {self._timeout_seconds:g} s (SESSION_STORE_TIMEOUT_SECONDS)")
            raise self._outage.record_failure(overdue) from error
        except (RedisError, OSError) as error:
            raise self._outage.record_failure(error) from error
        return replies


class _ConnectionLost(StoreUnavailable):
    """The connection was refused or broke; what was sent may have been carried out."""
