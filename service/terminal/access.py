"""What a command needs to work on the sessions: the service's own rooms over the same ways, without the service."""

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from service.checks.layout import Layout
from service.checks.shared_secret import SharedSecret
from service.lanes.clients import clients_for
from service.life.keys import Keys
from service.life.lifecycle import Lifecycle
from service.life.policies import Policies
from service.life.store import Store
from service.listing.census import Census
from service.listing.directory import Directory
from service.listing.revocation import Revocation
from service.process.embedded import url_of_the_running
from service.secret import Secret
from service.settings import Settings
from service.telemetry.audit import Audit
from service.telemetry.event_log import EventLog
from service.telemetry.later import Later
from service.telemetry.metrics import Metrics
from service.terminal.inspection import Inspection


class Access(NamedTuple):
    """The rooms, the URL of what they look into, and what lets go of it."""

    url: str
    aclose: Callable[[], Coroutine[Any, Any, None]]
    layout: Layout
    store: Store
    directory: Directory
    revocation: Revocation
    inspection: Inspection


async def opened(settings: Settings, secret: Secret, audit: Audit | None) -> Access:
    """Access by the settings. Raises CannotStart where they name no server, or none that runs."""
    url = await _redis_url(settings)
    metrics = Metrics()
    keys = Keys(settings.session_key_prefix, capped=settings.caps is not None)
    clients = clients_for(url, settings, metrics)
    lane = clients.wide
    lifecycle = Lifecycle(metrics, EventLog(secret), Later(), audit)
    policies, census = Policies(lane, keys, lifecycle, settings), Census(lane, keys)
    directory = Directory(lane, keys, census)
    store = Store(
        lane,
        keys,
        lifecycle,
        policies,
        secret,
        retention_ms=settings.retention_ms,
        lookup_life_ms=settings.lookup_life_ms,
        patience_seconds=settings.session_store_timeout_seconds,
        caps=settings.caps,
        record_life_ms=settings.record_life_ms,
    )
    inspection = Inspection(lane, keys, store, directory, census, policies, secret)
    shared_secret = SharedSecret(lane, keys, secret, settings.session_store_timeout_seconds)
    layout = Layout(lane, keys, shared_secret)
    revocation = Revocation(lane, keys, lifecycle)
    return Access(url, clients.aclose, layout, store, directory, revocation, inspection)


async def _redis_url(settings: Settings) -> str:
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    return await url_of_the_running(settings.session_data_dir.expanduser().absolute())
