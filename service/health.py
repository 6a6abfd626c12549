"""Whether the service lives, is ready, and how many sessions it keeps; asked over connections of their own."""

import asyncio
import time
from collections.abc import Awaitable
from typing import NamedTuple, TypeVar, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.census import Census
from service.degradation import Degradation, Reason
from service.errors import StoreUnavailable
from service.keys import LAYOUT_VERSION, Keys
from service.lane import ScriptFault

_T = TypeVar("_T")

_COUNTS_ARE_GOOD_FOR_SECONDS = 1


class Counts(NamedTuple):
    active_sessions: int
    expiring_soon: int


class Health:
    """Looks at Redis from the side: `redis` is a client of its own, `timeout_seconds` bounds each look."""

    def __init__(
        self, redis: Redis, keys: Keys, census: Census, degradation: Degradation, timeout_seconds: float
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._census = census
        self._degradation = degradation
        self._timeout_seconds = timeout_seconds
        self._started = time.monotonic()
        self._counts: Counts | None = None
        self._counted = float("-inf")
        self._counting = asyncio.Lock()
        self.draining = False

    @property
    def uptime_seconds(self) -> float:
        return time.monotonic() - self._started

    async def why_not_ready(self) -> str | None:
        """A sentence, or None when the service can serve. It reads and never writes."""
        if self.draining:
            return "The service is stopping."
        try:
            layout = cast(bytes | None, await self._look(self._redis.get(self._keys.layout)))
        except StoreUnavailable as error:
            return error.sentence
        if layout is None or layout == LAYOUT_VERSION.encode():
            return None
        found = layout.decode(errors="replace")
        return f"The data in Redis is of layout {found}; this version reads {LAYOUT_VERSION}."

    async def counts(self) -> Counts:
        """Of the sessions that live, at most a second old. Raises StoreUnavailable."""
        return await self._look(self._counted_lately())

    async def degradation(self) -> list[Reason]:
        """Why the service, though it answers, is not well. Raises StoreUnavailable."""
        return await self._look(self._degradation.reasons())

    async def aclose(self) -> None:
        await self._redis.aclose()

    async def _counted_lately(self) -> Counts:
        async with self._counting:
            if self._counts is None or time.monotonic() - self._counted > _COUNTS_ARE_GOOD_FOR_SECONDS:
                self._counts = await self._count()
                self._counted = time.monotonic()
            return self._counts

    async def _count(self) -> Counts:
        counted = await self._census.take()
        return Counts(counted.total.active, expiring_soon=await self._census.near_expiration(counted))

    async def _look(self, looking: Awaitable[_T]) -> _T:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await looking
        except (RedisError, OSError, TimeoutError, ScriptFault) as error:
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
