"""The ways to the store that one process takes."""

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from service.lanes.batch import Replication
from service.lanes.connect import source_of
from service.lanes.lane import Lane
from service.lanes.replicated import ReplicatedLane
from service.lanes.store_watch import StoreWatch
from service.settings import Settings
from service.telemetry.metrics import Metrics


class Clients(NamedTuple):
    """The requests' own way, one for work on many sessions, and one for what goes on beside the requests.

    `prompt` is the requests' own too, but no change on it waits for replicas. The watch is over all of them, and
    `aclose` lets go of them.
    """

    lane: Lane
    prompt: Lane
    wide: Lane
    beside: Lane
    watch: StoreWatch
    aclose: Callable[[], Coroutine[Any, Any, None]]


def clients_for(url: str, settings: Settings, metrics: Metrics) -> Clients:
    """Ways to the servers of a URL. Raises CannotStart."""
    timeout_seconds = settings.session_store_timeout_seconds
    watch = StoreWatch(metrics)
    source = source_of(url, timeout_seconds, watch)
    replication = replication_of(settings)
    prompt, wide, beside = source.new_lane(), source.new_lane(replication), source.new_lane()
    lane = prompt if replication is None else ReplicatedLane(reading=prompt, changing=source.way(replication))

    async def aclose() -> None:
        for part in (lane, wide, beside, source):
            await part.aclose()

    return Clients(lane, prompt, wide, beside, watch, aclose)


def replication_of(settings: Settings) -> Replication | None:
    """Half of the time that a request may take is the replicas'; the rest is for coming and going."""
    replicas, milliseconds = settings.session_wait_replicas, round(settings.session_store_timeout_seconds * 500)
    return Replication(replicas, milliseconds) if replicas else None
