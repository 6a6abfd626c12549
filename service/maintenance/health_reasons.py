"""Why a service that answers is not well: each reason has a code for programs and says what to do."""

import time
from collections.abc import Iterator
from typing import NamedTuple

from service.errors import StoreUnavailable
from service.maintenance.schema_version import UnknownSchemaVersion
from service.maintenance.server_checks import evicting_policy, eviction_fault, infos
from service.maintenance.sweeper import Sweeper
from service.redis_client.client import RedisClient
from service.redis_client.monitor import Incident
from service.sessions.events import SessionEvents

LATELY_SECONDS = 15 * 60
_LAG_SECONDS = 60
_REFUSED_LATELY_SECONDS = 60


class Reason(NamedTuple):
    code: str
    message: str


def reason_of(trouble: StoreUnavailable) -> Reason:
    """Why a service serves no session."""
    if isinstance(trouble, UnknownSchemaVersion):
        return Reason(
            "LAYOUT_UNKNOWN", f"{trouble.cause} Serve it by the release that wrote it, or move it as CHANGELOG.md says."
        )
    return Reason(trouble.code, f"{trouble.message}; the log says why.")


class HealthReasons:
    """Asks the sweeper, what was seen of the store and, over `lane`, the servers' setting of eviction."""

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
        self._refusals = rejections
        self._lag_limit_seconds = _LAG_SECONDS + 3 * sweep_interval_seconds

    async def reasons(self) -> list[Reason]:
        """All there are now, in no order of weight. Raises StoreUnavailable."""
        return [*self._of_the_sweeper(), *self._of_losses(), *self._of_refusals(), *await self._of_eviction()]

    def _of_the_sweeper(self) -> Iterator[Reason]:
        lag_seconds = self._sweeper.lag_seconds
        if lag_seconds > self._lag_limit_seconds:
            yield Reason(
                "SWEEPER_LAGS",
                f"This replica's sweeper is {lag_seconds:.0f} s behind; until then indexes and lookups keep what has "
                "ended. The log says what holds it up; if nothing does, lower SESSION_SWEEP_INTERVAL_SECONDS.",
            )

    def _of_losses(self) -> Iterator[Reason]:
        lost = self._events.last_loss_at
        if lost is not None and time.monotonic() - lost <= LATELY_SECONDS:
            yield Reason(
                "SESSIONS_LOST",
                f"In the last {LATELY_SECONDS // 60} minutes sessions were found gone before their end: evicted, lost "
                "by their server or removed by hand. Set maxmemory-policy noeviction and appendonly yes in Redis.",
            )

    def _of_refusals(self) -> Iterator[Reason]:
        if not self._refusals.occurred_within(_REFUSED_LATELY_SECONDS):
            return
        if self._refusals.is_under_replicated:
            yield Reason(
                "REPLICAS_BEHIND",
                f"In the last minute changes were made and answered 503: {self._refusals.cause}. Bring the replicas "
                "back, or lower SESSION_WAIT_REPLICAS.",
            )
        else:
            yield Reason(
                "REDIS_REFUSES",
                f"In the last minute Redis refused what it was asked: {self._refusals.cause} Sessions that cannot be "
                "renewed end at their timeouts. If it is out of memory, raise maxmemory or end sessions.",
            )

    async def _of_eviction(self) -> list[Reason]:
        policies = {server: evicting_policy(info) for server, info in (await infos(self._redis, "memory")).items()}
        return [
            Reason("REDIS_EVICTS", f"{eviction_fault(policy)}{f' (server {server})' if server else ''}.")
            for server, policy in policies.items()
            if policy
        ]
