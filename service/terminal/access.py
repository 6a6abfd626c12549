"""What a command needs to work on the sessions: the service's own rooms over one client, without the service."""

from typing import NamedTuple

from redis.asyncio import Redis

from service.census import Census
from service.connect import client_of_the_settings
from service.directory import Directory
from service.embedded import url_of_the_running
from service.event_log import EventLog
from service.keys import Keys
from service.later import Later
from service.lifecycle import Lifecycle
from service.metrics import Metrics
from service.policies import Policies
from service.revocation import Revocation
from service.settings import Settings
from service.single_calls import SingleCalls
from service.store import Store
from service.store_watch import StoreWatch
from service.terminal.inspection import Inspection


class Access(NamedTuple):
    """The rooms, and the URL and the client that they share."""

    url: str
    client: Redis
    store: Store
    directory: Directory
    revocation: Revocation
    inspection: Inspection


async def opened(settings: Settings) -> Access:
    """Access by the settings. Raises CannotStart where they name no server, or none that runs."""
    url = await _redis_url(settings)
    client = client_of_the_settings(url, settings.session_store_timeout_seconds)
    metrics, keys = Metrics(), Keys(settings.session_key_prefix)
    lane = SingleCalls(client, settings.session_store_timeout_seconds, StoreWatch(metrics))
    lifecycle = Lifecycle(metrics, EventLog(), Later())
    policies, census = Policies(lane, keys, lifecycle, settings), Census(lane, keys)
    directory = Directory(lane, keys, census)
    store = Store(
        lane,
        keys,
        lifecycle,
        policies,
        retention_ms=settings.retention_ms,
        lookup_life_ms=settings.lookup_life_ms,
        patience_seconds=settings.session_store_timeout_seconds,
    )
    inspection = Inspection(lane, keys, store, directory, census, policies)
    return Access(url, client, store, directory, Revocation(lane, keys, lifecycle), inspection)


async def _redis_url(settings: Settings) -> str:
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    return await url_of_the_running(settings.session_data_dir.expanduser().absolute())
