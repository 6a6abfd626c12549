"""What is counted and measured, by the names that Prometheus reads; no label takes an unbounded value."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Metric,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from service.observability import multiprocess_metrics

_REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_ROUND_TRIP_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2)
_BATCH_REQUESTS = (1, 2, 4, 8, 16, 32)

TRIGGERS = ("activity", "manual")
REASONS = ("inactivity", "max_duration", "deleted", "revoked", "evicted", "lost", "unknown")
OWNERS = ("user", "agent")
LIMITS = ("address", "address-guesses", "caller", "caller-guesses")
LOGS = ("stderr", "audit")
ERRORS = ("timeout", "connection", "refused", "demoted", "other")


class _Arrears:
    """Collects first of all and nothing itself: who counts by the thousand brings the instruments up to date."""

    def __init__(self) -> None:
        self.functions: list[Callable[[], None]] = []

    def collect(self) -> Iterable[Metric]:
        for function in self.functions:
            function()
        return []


class Metrics:
    """The instruments of one replica, in a registry of their own.

    Where its workers share theirs in a folder, the registry tells of those of all. `share` comes first then.
    """

    def __init__(self, shared_in: Path | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the families, for nobody
        self.registry = CollectorRegistry()
        self._arrears = _Arrears()
        self.registry.register(self._arrears)
        PlatformCollector(self.registry)
        if shared_in is None:
            ProcessCollector(registry=self.registry)
            GCCollector(self.registry)
        else:
            multiprocess_metrics.register_all(shared_in, self.registry)
        registry = self.registry if shared_in is None else None  # what is shared is not to be told twice
        counter = partial(Counter, namespace="sessions", registry=registry)
        gauge = partial(Gauge, namespace="sessions", registry=registry, multiprocess_mode="livemax")
        gauge_of_all = partial(gauge, multiprocess_mode="mostrecent")
        histogram = partial(Histogram, namespace="sessions", registry=registry)

        self.created = counter("created", "Sessions created")
        self.renewed = counter("renewed", "Renewals by trigger", ["trigger"])
        self.ended = counter("ended", "Sessions found ended by reason", ["reason"])
        self.lost_met = counter("lost_met", "Requests that met a session lost before its end")
        self.active = gauge_of_all("active", "Sessions that live, in all of Redis")
        self.near_expiration = gauge_of_all(
            "near_expiration", "Sessions within their warning threshold, in all of Redis"
        )
        self.sweeper_lag_seconds = gauge("sweeper_lag_seconds", "How far this replica's sweeper is behind by now")
        self.keys_without_end = gauge("keys_without_end", "Keys that should have a TTL and were found without")

        self.http_connections = gauge("http_connections", "Clients that are connected", multiprocess_mode="livesum")
        self.http_connections_refused = counter("http_connections_refused", "Connections refused for want of room")
        self.request_seconds = histogram(
            "http_request_duration_seconds",
            "Duration of HTTP requests",
            ["method", "route", "status"],
            buckets=_REQUEST_SECONDS,
        )
        self.round_trip_seconds = histogram(
            "store_round_trip_duration_seconds",
            "Round trips of requests to Redis",
            buckets=_ROUND_TRIP_SECONDS,
        )
        self.batch_requests = histogram(
            "store_batch_requests", "Requests that shared a round trip", buckets=_BATCH_REQUESTS
        )
        self.log_lines_dropped = counter("log_lines_dropped", "Lines that nobody took, by log", ["log"])
        self.denied = counter("denied", "Sessions that were not created for those that live, by cap", ["limit"])
        self.requests_limited = counter("requests_limited", "Requests refused by limit", ["limit"])
        self.store_errors = counter("store_errors", "Failures of Redis by kind", ["kind"])
        for instrument, values in (
            (self.renewed, TRIGGERS),
            (self.ended, REASONS),
            (self.denied, OWNERS),
            (self.requests_limited, LIMITS),
            (self.store_errors, ERRORS),
            (self.log_lines_dropped, LOGS),
        ):
            for value in values:  # what has not happened yet reads 0
                instrument.labels(value)

    def before_collecting(self, function: Callable[[], None]) -> None:
        """Have `function` called each time before the instruments are read."""
        self._arrears.functions.append(function)
