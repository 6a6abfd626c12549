"""Prometheus metrics of a replica, also over several worker processes. Labels have a bounded number of values."""

import os
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
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from service.end_reasons import END_REASONS

RENEWAL_TRIGGERS = ("activity", "manual")
CAP_OWNERS = ("user", "agent")
RATE_LIMITS = ("address", "address-guesses", "caller", "caller-guesses")
STORE_ERRORS = ("timeout", "connection", "refused", "demoted", "other")
LOGS = ("stderr", "audit")
AUTHORS = ("user", "agent")

_REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_ROUND_TRIP_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2)
_BATCH_REQUESTS = (1, 2, 4, 8, 16, 32)
_ANSWER_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 300)
_WAIT_SECONDS = (0.005, 0.025, 0.1, 0.5, 2, 10, 60, 300, 3600)
_SHARED_MEMORY = Path("/dev/shm")


class Metrics:
    """The metrics of one process, in their own registry.

    With `shared_folder`, the registry contains the metrics of all workers. Call `share_metrics` first.
    """

    def __init__(self, shared_folder: Path | None = None) -> None:
        if shared_folder is None:
            _ignore_inherited_folder()
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the number of time series
        self.registry = CollectorRegistry()
        self._callbacks = _Callbacks()
        self.registry.register(self._callbacks)
        PlatformCollector(self.registry)
        if shared_folder is None:
            ProcessCollector(registry=self.registry)
            GCCollector(self.registry)
        else:
            MultiProcessCollector(self.registry, str(shared_folder))  # type: ignore[no-untyped-call]
            self.registry.register(_WorkerProcesses(shared_folder))
        registry = self.registry if shared_folder is None else None  # MultiProcessCollector reads them from files
        counter = partial(Counter, namespace="sessions", registry=registry)
        gauge = partial(Gauge, namespace="sessions", registry=registry, multiprocess_mode="livemax")
        latest_gauge = partial(gauge, multiprocess_mode="mostrecent")
        histogram = partial(Histogram, namespace="sessions", registry=registry)

        self.created = counter("created", "Sessions created")
        self.renewed = counter("renewed", "Renewals, by trigger", ["trigger"])
        self.ended = counter("ended", "Sessions ended, by reason", ["reason"])
        self.lost_met = counter("lost_met", "Requests for lost sessions")
        self.denied = counter("denied", "Creations rejected by a cap, by owner of the cap", ["limit"])
        self.active = latest_gauge("active", "Live sessions in Redis")
        self.near_expiration = latest_gauge("near_expiration", "Sessions in Redis within their warning threshold")
        self.sweeper_lag_seconds = gauge(
            "sweeper_lag_seconds", "Age of the oldest expired session that the sweeper of this replica has not removed"
        )
        self.keys_without_end = gauge("keys_without_end", "Keys without the TTL that they should have")
        self.http_connections = gauge("http_connections", "Open client connections", multiprocess_mode="livesum")
        self.http_connections_refused = counter("http_connections_refused", "Connections rejected at the maximum")
        self.request_seconds = histogram(
            "http_request_duration_seconds",
            "Duration of HTTP requests",
            ["method", "route", "status"],
            buckets=_REQUEST_SECONDS,
        )
        self.requests_limited = counter("requests_limited", "Requests rejected by a rate limit, by limit", ["limit"])
        self.round_trip_seconds = histogram(
            "store_round_trip_duration_seconds", "Duration of round trips to Redis", buckets=_ROUND_TRIP_SECONDS
        )
        self.batch_requests = histogram("store_batch_requests", "Requests per round trip", buckets=_BATCH_REQUESTS)
        self.store_errors = counter("store_errors", "Redis errors, by kind", ["kind"])
        self.log_lines_dropped = counter("log_lines_dropped", "Dropped log lines, by log", ["log"])
        self.messages = counter("messages", "Messages sent, by author", ["author"])
        self.answer_seconds = histogram(
            "answer_duration_seconds", "Time from a message to its first answer", buckets=_ANSWER_SECONDS
        )
        self.inbox_wait_seconds = histogram(
            "inbox_wait_seconds", "Time from a message to its first delivery", buckets=_WAIT_SECONDS
        )
        self.inbox_redeliveries = counter("inbox_redeliveries", "Deliveries whose earlier lease ended")
        self.listeners = gauge("listeners", "Open event streams", multiprocess_mode="livesum")
        self.listeners_dropped = counter("listeners_dropped", "Event streams closed because the client is too slow")
        self.listeners_resumed = counter("listeners_resumed", "Event streams that continued after an earlier message")
        self._initialize_labels()

    def _initialize_labels(self) -> None:
        """Export 0 for every label value before its first event."""
        for metric, label_values in (
            (self.renewed, RENEWAL_TRIGGERS),
            (self.ended, END_REASONS),
            (self.denied, CAP_OWNERS),
            (self.requests_limited, RATE_LIMITS),
            (self.store_errors, STORE_ERRORS),
            (self.log_lines_dropped, LOGS),
            (self.messages, AUTHORS),
        ):
            for value in label_values:
                metric.labels(value)

    def before_collecting(self, callback: Callable[[], None]) -> None:
        """Call `callback` before each collection, for example to update a gauge."""
        self._callbacks.functions.append(callback)


class _Callbacks:
    """A collector without metrics. It is registered first, so it runs before the others."""

    def __init__(self) -> None:
        self.functions: list[Callable[[], None]] = []

    def collect(self) -> Iterable[Metric]:
        for function in self.functions:
            function()
        return []


# Several workers: each stores its values in files in one folder, and each can export the values of all. The files are
# named after the number of the worker, not its process id. A restarted worker therefore continues its counters.


def shared_metrics_parent() -> Path | None:
    """Return a file system in memory for the folder of the metrics, or None if there is none."""
    return _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None


def _ignore_inherited_folder() -> None:
    """Keep values in memory although the environment has the folder of another program."""
    for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
        os.environ.pop(name, None)
    values.ValueClass = values.MutexValue


def share_metrics(folder: Path, worker: int) -> None:
    """Store the values of all metrics that this process creates from now on in `folder`."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]
    _process_file(folder, worker, os.getpid()).touch()


def remove_worker_metrics(folder: Path, worker: int, process_id: int) -> None:
    """Remove the gauges of an exited worker. Its counters stay."""
    mark_process_dead(worker, str(folder))  # type: ignore[no-untyped-call]
    _process_file(folder, worker, process_id).unlink(missing_ok=True)


class _WorkerProcesses:
    """Collects the process metrics of each worker, labelled with its number."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for file in sorted(self._folder.glob("*.process")):
            worker, process_id = file.stem.split("-")
            for metric in _process_metrics(process_id):
                family = families.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
                for sample in metric.samples:
                    family.add_sample(sample.name, {"worker": worker}, sample.value)
        return families.values()


def _process_metrics(process_id: str) -> Iterable[Metric]:
    return ProcessCollector(pid=lambda: process_id, registry=None).collect()


def _process_file(folder: Path, worker: int, process_id: int) -> Path:
    """Return an empty file whose name maps a worker to its process. An empty file cannot be read half-written."""
    return folder / f"{worker}-{process_id}.process"
