"""What is seen of the store over every way to it: round trips, and trouble, which is told of once an episode."""

import logging
import time
from contextvars import Context
from copy import copy

from prometheus_client import Counter
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.errors import StoreUnavailable
from service.observability.metrics import Metrics
from service.redis_client.errors import CommandRejected, ServerDemoted, UnderReplicated

QUIET_SECONDS = 10
"""How long nothing may have been refused before refusals are over: while some changes are refused, others are done."""

_log = logging.getLogger(__name__)


class Incident:
    """A kind of trouble: its beginning is told once, and its end; `errors` counts it. It ends after some quiet."""

    def __init__(self, begun: str, over: str, errors: Counter | None = None, quiet_seconds: float = 0) -> None:
        self._begun = begun
        self._over = over
        self._errors = errors
        self._quiet_seconds = quiet_seconds
        self._lasts = False
        self._last_seen = float("-inf")
        self.cause = ""
        """What was last seen of it."""
        self.is_under_replicated = False
        """Whether that was a want of replicas that have a change."""

    def record_failure(self, error: Exception) -> StoreUnavailable:
        """What the caller is told of it: that Redis refused, or that it did not answer."""
        if self._errors is not None:
            self._errors.labels(_kind(error)).inc()
        self.cause = error.cause if isinstance(error, StoreUnavailable) else f"{type(error).__name__}: {error}"
        self.is_under_replicated = isinstance(error, UnderReplicated)
        self._last_seen = time.monotonic()
        if not self._lasts:
            self._lasts = True
            Context().run(_log.warning, "%s: %s", self._begun, self.cause)  # of no request in particular
        return error if isinstance(error, CommandRejected) else StoreUnavailable(self.cause)

    def record_success(self) -> None:
        """Something went well."""
        if self._lasts and not self.occurred_within(self._quiet_seconds):
            self._lasts = False
            Context().run(_log.info, "%s", self._over)

    def occurred_within(self, seconds: float) -> bool:
        return time.monotonic() - self._last_seen < seconds


class StoreMonitor:
    """Shared by all ways to the store."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._of_servers: dict[str, StoreMonitor] = {}
        errors = metrics.store_errors
        self.outage = Incident("the session store does not answer", "the session store answers again", errors)
        self.rejections = Incident(
            "the session store refuses what it is asked",
            "the session store does what it is asked again",
            errors,
            QUIET_SECONDS,
        )

    def for_node(self, server: str) -> "StoreMonitor":
        """The same watch, with outages of its own: one server of several may be away while the others answer."""
        if server not in self._of_servers:
            begun, over = f"the session store's {server} does not answer", f"the session store's {server} answers again"
            self._of_servers[server] = self._with_outages(Incident(begun, over, self._metrics.store_errors))
        return self._of_servers[server]

    def for_writes(self) -> "StoreMonitor":
        """The same watch, with outages of its own: changes may wait in vain for replicas while reads go on."""
        begun, over = "the session store does not answer changes", "the session store answers changes again"
        return self._with_outages(Incident(begun, over, self._metrics.store_errors, QUIET_SECONDS))

    def _with_outages(self, outage: Incident) -> "StoreMonitor":
        watch = copy(self)
        watch.outage = outage
        return watch

    def observe_round_trip(self, seconds: float, requests: int) -> None:
        """So many requests were answered together."""
        self._metrics.round_trip_seconds.observe(seconds)
        self._metrics.batch_requests.observe(requests)
        self.outage.record_success()


def _kind(error: Exception) -> str:
    """The name under which a failure of Redis is counted."""
    match error:
        case ServerDemoted():
            return "demoted"
        case CommandRejected():
            return "refused"
        case TimeoutError() | RedisTimeoutError():
            return "timeout"
        case OSError() | RedisConnectionError():
            return "connection"
        case _:
            return "other"
