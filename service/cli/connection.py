"""What a command needs to work on the sessions: the service's own rooms over the same ways, without the service."""

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from service.cli.inspection import Inspection
from service.maintenance.schema_version import SchemaVersion
from service.maintenance.secret_loader import SecretLoader
from service.observability.audit import Audit
from service.observability.event_log import EventLog
from service.observability.metrics import Metrics
from service.process.embedded_server import url_of_the_running
from service.redis_client.factory import connect_clients
from service.sessions.build import build_keys, build_session_store
from service.sessions.counts import SessionCounts
from service.sessions.events import SessionEvents
from service.sessions.listing import SessionListing
from service.sessions.policies import Policies
from service.sessions.revocation import BulkRevocation
from service.sessions.scripts import SCRIPTS
from service.sessions.store import SessionStore
from service.settings import Settings
from service.shared_secret import SharedSecret


class Access(NamedTuple):
    """The rooms, the URL of what they look into, and what lets go of it."""

    url: str
    aclose: Callable[[], Coroutine[Any, Any, None]]
    layout: SchemaVersion
    store: SessionStore
    directory: SessionListing
    revocation: BulkRevocation
    inspection: Inspection


async def opened(settings: Settings, secret: SharedSecret, audit: Audit | None) -> Access:
    """Access by the settings. Raises StartupError where they name no server, or none that runs."""
    url = await _redis_url(settings)
    metrics = Metrics()
    keys = build_keys(settings)
    clients = connect_clients(url, settings, metrics, SCRIPTS)
    redis = clients.bulk
    events = SessionEvents(metrics, EventLog(secret), audit)
    policies, session_counts = Policies(redis, keys, events, settings), SessionCounts(redis, keys)
    directory = SessionListing(redis, keys, session_counts)
    store = build_session_store(settings, redis, events, secret)
    inspection = Inspection(redis, keys, store, directory, session_counts, policies, secret)
    shared_secret = SecretLoader(redis, keys, secret, settings.session_store_timeout_seconds)
    layout = SchemaVersion(redis, keys, shared_secret)
    revocation = BulkRevocation(redis, keys, events)
    return Access(url, clients.aclose, layout, store, directory, revocation, inspection)


async def _redis_url(settings: Settings) -> str:
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    return await url_of_the_running(settings.session_data_dir.expanduser().absolute())
