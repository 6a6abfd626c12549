"""Whether the service lives, is ready, and how many sessions it keeps; asked over connections of their own."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar

from service.errors import StoreUnavailable
from service.maintenance.health_reasons import HealthReasons, Reason
from service.maintenance.schema_version import SchemaVersion
from service.redis_client.client import RedisClient
from service.redis_client.errors import ScriptError
from service.sessions.counts import SessionCounts

_T = TypeVar("_T")

_GOOD_FOR_SECONDS = 1


class Counts(NamedTuple):
    active_sessions: int
    expiring_soon: int


class Health:
    """Looks at Redis over `lane`, which should not be the requests' own; `timeout_seconds` bounds each look."""

    def __init__(
        self,
        redis: RedisClient,
        layout: SchemaVersion,
        session_counts: SessionCounts,
        degradation: HealthReasons,
        timeout_seconds: float,
    ) -> None:
        self._redis = redis
        self._layout = layout
        self._session_counts = session_counts
        self._timeout_seconds = timeout_seconds
        self._started = time.monotonic()
        self._counts = _Lately(self._count)
        self._reasons = _Lately(degradation.reasons)
        self.draining = False

    @property
    def uptime_seconds(self) -> float:
        return time.monotonic() - self._started

    async def why_not_ready(self) -> str | None:
        """A sentence, or None when the service can serve. It reads and never writes."""
        if self.draining:
            return "The service is stopping."
        failure, servers = await asyncio.gather(self._look_at_layout(), self._redis.broadcast(("PING",)))
        if self._layout.trouble is not None or failure is None:
            return self._layout.trouble
        answering = [reply for (reply,) in servers.values() if not isinstance(reply, Exception)]
        can_do_without_one = self._layout.was_found and len(servers) > 1 and bool(answering)  # it is a cluster then
        return None if can_do_without_one else failure.detail

    async def counts(self) -> Counts:
        """Of the sessions that live, at most a second old. Raises StoreUnavailable, also for the layout."""
        await self._look(self._layout.require_supported())
        return await self._look(self._counts.found())

    async def degradation(self) -> list[Reason]:
        """Why the service, though it answers, is not well; at most a second old. Raises StoreUnavailable."""
        return await self._look(self._reasons.found())

    async def _look_at_layout(self) -> StoreUnavailable | None:
        try:
            await self._look(self._layout.look_only())
        except StoreUnavailable as error:
            return error
        return None

    async def _count(self) -> Counts:
        counted, near = await self._session_counts.count_with_near_expiration()
        return Counts(counted.overall.active, expiring_soon=near)

    async def _look(self, looking: Awaitable[_T]) -> _T:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await looking
        except (TimeoutError, ScriptError) as error:
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error


class _Lately(Generic[_T]):
    """What a look found: kept for a second, and shared by those who ask at once. A look that failed is not kept."""

    def __init__(self, look: Callable[[], Awaitable[_T]]) -> None:
        self._look = look
        self._found: list[_T] = []
        self._found_at = float("-inf")
        self._looking = asyncio.Lock()

    async def found(self) -> _T:
        async with self._looking:
            if not self._found or time.monotonic() - self._found_at > _GOOD_FOR_SECONDS:
                self._found = [await self._look()]
                self._found_at = time.monotonic()
            return self._found[0]
