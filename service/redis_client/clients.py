"""The ways to the store that one process takes."""

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from service.observability.metrics import Metrics
from service.redis_client.batch import Replication
from service.redis_client.client import RedisClient
from service.redis_client.factory import client_factory
from service.redis_client.monitor import StoreMonitor
from service.redis_client.replicated import ReplicatedClient
from service.redis_client.scripts import ScriptCatalog
from service.settings import Settings


class RedisClients(NamedTuple):
    """The requests' own way, one for work on many sessions, and one for what goes on beside the requests.

    `prompt` is the requests' own too, but no change on it waits for replicas. The watch is over all of them, and
    `aclose` lets go of them.
    """

    main: RedisClient
    no_wait: RedisClient
    bulk: RedisClient
    background: RedisClient
    watch: StoreMonitor
    aclose: Callable[[], Coroutine[Any, Any, None]]


def connect_clients(url: str, settings: Settings, metrics: Metrics, scripts: ScriptCatalog) -> RedisClients:
    """Ways to the servers of a URL. Raises CannotStart."""
    timeout_seconds = settings.session_store_timeout_seconds
    watch = StoreMonitor(metrics)
    source = client_factory(url, timeout_seconds, watch, scripts)
    replication = replication_of(settings)
    no_wait, bulk, background = source.new_client(), source.new_client(replication), source.new_client()
    main = no_wait if replication is None else ReplicatedClient(reading=no_wait, changing=source.way(replication))

    async def aclose() -> None:
        for part in (main, bulk, background, source):
            await part.aclose()

    return RedisClients(main, no_wait, bulk, background, watch, aclose)


def replication_of(settings: Settings) -> Replication | None:
    """Half of the time that a request may take is the replicas'; the rest is for coming and going."""
    replicas, milliseconds = settings.session_wait_replicas, round(settings.session_store_timeout_seconds * 500)
    return Replication(replicas, milliseconds) if replicas else None
