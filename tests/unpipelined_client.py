"""A RedisClient that makes one round trip per call, through redis-py.

It works with fakeredis. The benchmarks compare auto-pipelining with it.
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
    """A call takes at most `timeout_seconds`, including the wait for a connection."""

    def __init__(self, client: Redis, timeout_seconds: float, monitor: StoreMonitor) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds
        self._monitor = monitor
        self._outage = monitor.outage
        self._rejections = monitor.rejections

    @property
    def supports_multi_slot(self) -> bool:
        return True

    async def read_hash(self, key: str, fields: Fields) -> Read:
        ((values, now_ms),) = await self.read_hashes([key], fields)
        return values, now_ms

    async def read_hashes(self, keys: Sequence[str], fields: Fields) -> list[Read]:
        reads: list[Command] = [("HMGET", key, *fields) for key in keys]
        *hashes, now = await self.query(*reads, ("TIME",))
        now_ms = ms_from_time_reply(now)
        return [(values, now_ms) for values in hashes]

    async def query(self, *commands: Command) -> list[Reply]:
        try:
            return await self._call(send_with_script_retry(self._send, commands, SCRIPTS))
        except _ConnectionLost:
            return await self._call(send_with_script_retry(self._send, commands, SCRIPTS))

    async def execute(self, *commands: Command) -> list[Reply]:
        return await self._write(send_with_script_retry(self._send, commands, SCRIPTS))

    async def execute_ordered(self, *commands: Command) -> list[Reply]:
        return await self._write(self._send_in_order(commands))

    async def broadcast(self, *commands: Command) -> dict[str, list[Reply]]:
        return {"": await replies_or_errors(self._bounded(self._send(commands)), len(commands))}

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _send_in_order(self, commands: Sequence[Command]) -> list[Reply]:
        return await retry_missing_scripts_in_order(self._send, commands, await self._send(commands), SCRIPTS)

    async def _write(self, replies: Awaitable[list[Reply]]) -> list[Reply]:
        result = await self._call(replies)
        self._rejections.record_success()
        return result

    async def _send(self, commands: Sequence[Command]) -> list[Reply]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        started = perf_counter()
        replies: list[Reply] = await pipeline.execute(raise_on_error=False)
        self._monitor.observe_round_trip(perf_counter() - started, 1)
        return replies

    async def _call(self, result: Awaitable[_T]) -> _T:
        try:
            return await self._bounded(result)
        except CommandRejected as rejection:
            if isinstance(rejection, ServerDemoted):
                await self._reconnect()
            self._rejections.record_failure(rejection)
            raise

    async def _reconnect(self) -> None:
        """Close all connections; those in use after their call: redis-py fails if one is closed while connecting."""
        pool = self._client.connection_pool
        for connection in pool._in_use_connections:
            connection.mark_for_reconnect()  # type: ignore[no-untyped-call]
        await pool.disconnect(inuse_connections=False)

    async def _bounded(self, result: Awaitable[_T]) -> _T:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await result
        except RedisConnectionError as error:
            raise _ConnectionLost(self._outage.record_failure(error).cause) from error
        except TimeoutError as error:
            timeout = TimeoutError(f"no reply within {self._timeout_seconds:g} s (SESSION_STORE_TIMEOUT_SECONDS)")
            raise self._outage.record_failure(timeout) from error
        except (RedisError, OSError) as error:
            raise self._outage.record_failure(error) from error


class _ConnectionLost(StoreUnavailable):
    """The connection failed. Redis may have executed the commands."""
