"""Report whether the service is ready, whether it is degraded and why, and how many sessions are active."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

from service.errors import StoreUnavailable
from service.maintenance.schema_version import SchemaVersion, UnknownSchemaVersion
from service.maintenance.startup_checks import evicting_policy, eviction_fault, server_infos
from service.maintenance.sweeper import Sweeper
from service.redis_client.client import RedisClient
from service.redis_client.errors import ScriptError
from service.redis_client.monitor import Incident
from service.sessions.counts import SessionCounts
from service.sessions.events import SessionEvents

LOST_WITHIN_SECONDS = 15 * 60
_LAG_SECONDS = 60
_REJECTED_WITHIN_SECONDS = 60
_CACHE_SECONDS = 1

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class Counts(NamedTuple):
    active_sessions: int
    expiring_soon: int


class Reason(NamedTuple):
    """Why a service is degraded or unhealthy: a code for programs and a message for operators."""

    code: str
    message: str


def reason_of(error: StoreUnavailable) -> Reason:
    """Return the reason for which the service rejects every request about sessions."""
    if isinstance(error, UnknownSchemaVersion):
        action = "Run the release that wrote it, or migrate the data as CHANGELOG.md describes."
        return Reason("LAYOUT_UNKNOWN", f"{error.cause} {action}")
    return Reason(error.code, f"{error.message}; the log contains the cause.")


class HealthReasons:
    """Collects the reasons for which a service that responds is degraded.

    `redis` should not be the client that serves requests. `rejections` is the record of commands that Redis rejected.
    """

    def __init__(
        self,
        redis: RedisClient,
        sweeper: Sweeper,
        events: SessionEvents,
        rejections: Incident,
        sweep_interval_seconds: float,
    ) -> None:
        self._redis = redis
        self._sweeper = sweeper
        self._events = events
        self._rejections = rejections
        self._lag_limit_seconds = _LAG_SECONDS + 3 * sweep_interval_seconds

    async def reasons(self) -> list[Reason]:
        """Return all current reasons, unordered. Raises StoreUnavailable."""
        return [*self._sweeper_lags(), *self._sessions_lost(), *self._commands_rejected(), *await self._evictions()]

    def _sweeper_lags(self) -> Iterator[Reason]:
        lag_seconds = self._sweeper.lag_seconds
        if lag_seconds > self._lag_limit_seconds:
            yield Reason(
                "SWEEPER_LAGS",
                f"The sweeper of this replica is {lag_seconds:.0f} s behind, so indexes contain expired sessions. The "
                "log contains the cause. If there is none, lower SESSION_SWEEP_INTERVAL_SECONDS.",
            )

    def _sessions_lost(self) -> Iterator[Reason]:
        lost_at = self._events.last_loss_at
        if lost_at is not None and time.monotonic() - lost_at <= LOST_WITHIN_SECONDS:
            yield Reason(
                "SESSIONS_LOST",
                f"In the last {LOST_WITHIN_SECONDS // 60} minutes, sessions disappeared from Redis before they "
                "expired: evicted, lost in a restart, or deleted by another program. Set maxmemory-policy noeviction "
                "and appendonly yes in Redis.",
            )

    def _commands_rejected(self) -> Iterator[Reason]:
        if not self._rejections.occurred_within(_REJECTED_WITHIN_SECONDS):
            return
        if self._rejections.is_under_replicated:
            yield Reason(
                "REPLICAS_BEHIND",
                f"In the last minute, Redis applied changes that too few replicas received in time: "
                f"{self._rejections.cause}. Bring back the replicas, or lower SESSION_WAIT_REPLICAS.",
            )
        else:
            yield Reason(
                "REDIS_REFUSES",
                f"In the last minute, Redis rejected commands: {self._rejections.cause} Sessions that cannot be "
                "renewed expire. If Redis is out of memory, raise maxmemory or end sessions.",
            )

    async def _evictions(self) -> list[Reason]:
        infos = await server_infos(self._redis, "memory")
        policies = {server: evicting_policy(info) for server, info in infos.items()}
        return [
            Reason("REDIS_EVICTS", f"{eviction_fault(policy)}{f' (server {server})' if server else ''}.")
            for server, policy in policies.items()
            if policy
        ]


class Health:
    """Checks Redis for probes and health requests.

    `redis` should not be the client that serves requests. `timeout_seconds` bounds each check.
    """

    def __init__(
        self,
        redis: RedisClient,
        schema_version: SchemaVersion,
        session_counts: SessionCounts,
        health_reasons: HealthReasons,
        timeout_seconds: float,
    ) -> None:
        self._redis = redis
        self._schema_version = schema_version
        self._session_counts = session_counts
        self._timeout_seconds = timeout_seconds
        self._started = time.monotonic()
        self._counts = _Cached(self._count)
        self._reasons = _Cached(health_reasons.reasons)
        self._logged_problem: str | None = None
        self.is_draining = False

    @property
    def uptime_seconds(self) -> float:
        return time.monotonic() - self._started

    async def readiness_problem(self) -> str | None:
        """Return why the service cannot serve requests, or None if it can. Writes nothing to Redis."""
        if self.is_draining:
            return "The service is stopping."
        problem = await self._readiness_problem()
        self._log_readiness(problem)
        return problem

    def _log_readiness(self, problem: str | None) -> None:
        """Log changes only, because probes are frequent."""
        if problem == self._logged_problem:
            return
        if problem is None:
            _log.info("ready again")
        else:
            _log.warning("not ready: %s", problem)
        self._logged_problem = problem

    async def _readiness_problem(self) -> str | None:
        error, servers = await asyncio.gather(self._schema_version_error(), self._redis.broadcast(("PING",)))
        if self._schema_version.problem is not None or error is None:
            return self._schema_version.problem
        has_reply = any(not isinstance(reply, Exception) for (reply,) in servers.values())
        serves_other_nodes = self._schema_version.was_checked and len(servers) > 1 and has_reply  # only in a cluster
        return None if serves_other_nodes else error.detail

    async def counts(self) -> Counts:
        """Return counts that are at most a second old. Raises StoreUnavailable and UnknownSchemaVersion."""
        await self._within_timeout(self._schema_version.require_supported())
        return await self._within_timeout(self._counts.value())

    async def degradation(self) -> list[Reason]:
        """Return why the service is degraded, at most a second old. Raises StoreUnavailable."""
        return await self._within_timeout(self._reasons.value())

    async def _schema_version_error(self) -> StoreUnavailable | None:
        try:
            await self._within_timeout(self._schema_version.check_read_only())
        except StoreUnavailable as error:
            return error
        return None

    async def _count(self) -> Counts:
        counts, near_expiration = await self._session_counts.count_with_near_expiration()
        return Counts(counts.overall.active, expiring_soon=near_expiration)

    async def _within_timeout(self, work: Awaitable[_T]) -> _T:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await work
        except (TimeoutError, ScriptError) as error:
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error


class _Cached(Generic[_T]):
    """Caches a result for a second. Concurrent callers share one read; a failed read is not cached."""

    def __init__(self, read: Callable[[], Awaitable[_T]]) -> None:
        self._read = read
        self._values: list[_T] = []
        self._read_at = float("-inf")
        self._lock = asyncio.Lock()

    async def value(self) -> _T:
        async with self._lock:
            if not self._values or time.monotonic() - self._read_at > _CACHE_SECONDS:
                self._values = [await self._read()]
                self._read_at = time.monotonic()
            return self._values[0]
