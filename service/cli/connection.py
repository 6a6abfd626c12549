"""Connects a command to Redis, through the same parts that the service uses."""

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from service.cli.inspection import Inspection
from service.maintenance.schema_version import SchemaVersion
from service.maintenance.secret_loader import SecretLoader
from service.observability.audit import AuditLog
from service.observability.event_log import EventLog
from service.observability.metrics import Metrics
from service.process.embedded_server import data_dir_of, url_of_running_server
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


class Backend(NamedTuple):
    """The parts of the service that commands use, and the URL of their Redis."""

    url: str
    aclose: Callable[[], Coroutine[Any, Any, None]]
    schema_version: SchemaVersion
    store: SessionStore
    listing: SessionListing
    revocation: BulkRevocation
    inspection: Inspection


async def connect(settings: Settings, secret: SharedSecret, audit: AuditLog | None) -> Backend:
    """Build the backend. Raises StartupError if REDIS_URL is invalid, or if it is unset and no embedded server runs."""
    url = await _redis_url(settings)
    metrics = Metrics()
    keys = build_keys(settings)
    clients = connect_clients(url, settings, metrics, SCRIPTS)
    client = clients.bulk
    events = SessionEvents(metrics, EventLog(secret), audit)
    policies = Policies(client, keys, events, settings)
    counts = SessionCounts(client, keys)
    listing = SessionListing(client, keys, counts)
    store = build_session_store(settings, client, events, secret)
    secret_loader = SecretLoader(client, keys, secret, settings.session_store_timeout_seconds)
    return Backend(
        url=url,
        aclose=clients.aclose,
        schema_version=SchemaVersion(client, keys, secret_loader),
        store=store,
        listing=listing,
        revocation=BulkRevocation(client, keys, events),
        inspection=Inspection(client, keys, store, listing, counts, policies, secret),
    )


async def _redis_url(settings: Settings) -> str:
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    return await url_of_running_server(data_dir_of(settings))
