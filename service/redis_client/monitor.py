"""Metrics and log lines about Redis: round trips, errors, and when an outage begins and ends."""

import logging
import time
from contextvars import Context
from copy import copy
from weakref import WeakValueDictionary

from prometheus_client import Counter
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.errors import StoreUnavailable
from service.observability.metrics import Metrics
from service.redis_client.errors import CommandRejected, ServerDemoted, UnderReplicated

QUIET_SECONDS = 10
"""An incident in which only some commands fail ends after this long without a failure."""

_log = logging.getLogger(__name__)


class Incident:
    """A period of failures. Logs its beginning and its end once, and counts each failure in `errors`.

    It ends with the first success that is at least `quiet_seconds` after the last failure.
    """

    def __init__(
        self, begin_message: str, end_message: str, errors: Counter | None = None, quiet_seconds: float = 0
    ) -> None:
        self._begin_message = begin_message
        self._end_message = end_message
        self._errors = errors
        self._quiet_seconds = quiet_seconds
        self._is_open = False
        self._last_failure_at = float("-inf")
        self.cause = ""
        """The cause of the last failure."""
        self.is_under_replicated = False
        """Whether the last failure was a write that too few replicas acknowledged."""

    def record_failure(self, error: Exception) -> StoreUnavailable:
        """Return the error to raise to the caller."""
        if self._errors is not None:
            self._errors.labels(_kind_of(error)).inc()
        self.cause = error.cause if isinstance(error, StoreUnavailable) else f"{type(error).__name__}: {error}"
        self.is_under_replicated = isinstance(error, UnderReplicated)
        self._last_failure_at = time.monotonic()
        if not self._is_open:
            self._is_open = True
            # An empty context: the line must not carry the id of one of the requests.
            Context().run(_log.warning, "%s: %s", self._begin_message, self.cause)
        return error if isinstance(error, CommandRejected) else StoreUnavailable(self.cause)

    def record_success(self) -> None:
        if self._is_open and not self.occurred_within(self._quiet_seconds):
            self._is_open = False
            Context().run(_log.info, "%s", self._end_message)

    def occurred_within(self, seconds: float) -> bool:
        return time.monotonic() - self._last_failure_at < seconds


class StoreMonitor:
    """The state of Redis as all clients of one process see it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._nodes: WeakValueDictionary[str, StoreMonitor] = WeakValueDictionary()
        """Monitors of nodes by address, as long as a client uses them: addresses change."""
        errors = metrics.store_errors
        self.outage = Incident("Redis does not respond", "Redis responds again", errors)
        self.rejections = Incident("Redis rejects commands", "Redis accepts commands again", errors, QUIET_SECONDS)

    def for_node(self, address: str) -> "StoreMonitor":
        """A monitor with separate outages: one node of a cluster may be down while the others respond."""
        monitor = self._nodes.get(address)
        if monitor is None:
            node = f"Redis node {address}"
            outage = Incident(f"{node} does not respond", f"{node} responds again", self._metrics.store_errors)
            monitor = self._nodes[address] = self._with_outage(outage)
        return monitor

    def for_writes(self) -> "StoreMonitor":
        """A monitor with separate outages: writes that wait for replicas may time out while reads succeed."""
        outage = Incident(
            "Redis does not respond to writes",
            "Redis responds to writes again",
            self._metrics.store_errors,
            QUIET_SECONDS,
        )
        return self._with_outage(outage)

    def observe_round_trip(self, seconds: float, requests: int) -> None:
        """Record that one batch of this many requests was answered."""
        self._metrics.round_trip_seconds.observe(seconds)
        self._metrics.batch_requests.observe(requests)
        self.outage.record_success()

    def _with_outage(self, outage: Incident) -> "StoreMonitor":
        monitor = copy(self)
        monitor.outage = outage
        return monitor


def _kind_of(error: Exception) -> str:
    """The value of the `kind` label."""
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
