"""Builds the application: its parts in order, its background tasks, and their cleanup."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import NamedTuple

from aiohttp import web

from service.api import event_routes, health_routes, inbox_routes, message_routes, openapi, session_routes
from service.api.access_log import AccessLog
from service.api.app_keys import (
    ACCESS_LOG,
    HEALTH,
    HISTORY,
    HUB,
    INBOX_CONSUMERS,
    INBOXES,
    LISTING,
    POLICIES,
    REVOCATION,
    SETTINGS,
    SHARED_SECRET,
    STORE,
)
from service.api.middleware import MIDDLEWARE, ApplicationMiddleware, build_middleware
from service.api.security_headers import add_security_headers
from service.auth.authenticator import Authenticator, build_authenticator
from service.live.hub import Hub
from service.live.inbox_consumers import InboxConsumers
from service.maintenance.health import Health, HealthReasons
from service.maintenance.index_repair import REMOVAL_INTERVAL_SECONDS, IndexRemoval, IndexRepair
from service.maintenance.lost_sessions import LostSessions
from service.maintenance.periodic import run_periodically
from service.maintenance.reconciler import Reconciler
from service.maintenance.schema_version import SchemaVersion
from service.maintenance.secret_loader import SecretLoader
from service.maintenance.startup_checks import CHECK_INTERVAL_SECONDS, StartupChecks
from service.maintenance.sweeper import Sweeper
from service.messages.dispatcher import DISPATCH_INTERVAL_SECONDS, Dispatcher
from service.messages.history import MessageHistory
from service.messages.inbox import Inboxes
from service.observability.audit import AuditLog
from service.rate_limit.limiter import build_rate_limiter
from service.redis_client.client import RedisClient
from service.redis_client.factory import RedisClients
from service.sessions.build import build_keys, build_session_store
from service.sessions.counts import SessionCounts
from service.sessions.events import SessionEvents
from service.sessions.keys import Keys
from service.sessions.listing import SessionListing
from service.sessions.policies import Policies
from service.sessions.revocation import BulkRevocation
from service.settings import MAX_BODY_BYTES, Settings

SWEEP_TIMEOUT_SECONDS = 30
RECONCILE_TIMEOUT_SECONDS = 60

_CleanupContext = Callable[[web.Application], AsyncIterator[None]]


def create_app(
    settings: Settings,
    clients: RedisClients,
    access_log: AccessLog,
    audit: AuditLog | None = None,
    tracing: ApplicationMiddleware | None = None,
) -> web.Application:
    """Build the application. Its cleanup closes the clients.

    Raises StartupError if the API key file cannot be loaded.
    """
    keys = build_keys(settings)
    metrics, event_log = access_log.metrics, access_log.log
    events = SessionEvents(metrics, event_log, audit)
    maintenance = _build_maintenance(settings, clients.background, keys, events, access_log)
    counts = SessionCounts(clients.bulk, keys)
    health = _build_health(settings, clients, maintenance, events, counts)
    rate_limiter = build_rate_limiter(settings, clients.no_wait, keys, metrics)
    authenticator = build_authenticator(settings)
    middleware = build_middleware(
        settings, access_log, tracing, maintenance.schema_version, rate_limiter, authenticator, audit
    )

    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app[SETTINGS] = settings
    app[ACCESS_LOG] = access_log
    app[MIDDLEWARE] = middleware
    app[HEALTH] = health
    app[STORE] = build_session_store(settings, clients.main, events, event_log.secret)
    inboxes = Inboxes(clients.no_wait, keys, events, settings)  # a lost lease only delivers a message again
    dispatcher = Dispatcher(clients.main, keys, Inboxes(clients.main, keys, events, settings), events)
    app[INBOXES] = inboxes
    app[HISTORY] = MessageHistory(
        clients.main, clients.no_wait, keys, events, dispatcher, metrics, event_log.secret, settings
    )
    app[HUB] = Hub(clients.subscriber, keys, app[STORE], app[HISTORY], metrics)
    app[INBOX_CONSUMERS] = InboxConsumers(clients.subscriber, keys, inboxes, metrics)
    app[LISTING] = SessionListing(clients.bulk, keys, counts, maintenance.index_removal.queue_missing)
    app[LISTING].on_unreadable = maintenance.reconciler.on_unreadable = events.record_unreadable
    app[REVOCATION] = BulkRevocation(clients.bulk, keys, events)
    app[SHARED_SECRET] = event_log.secret
    app[POLICIES] = Policies(clients.main, keys, events, settings)

    app.cleanup_ctx.append(_closing(clients.aclose))  # last: cleanup runs in reverse order
    if authenticator is not None:
        app.cleanup_ctx.append(_running_authenticator(authenticator))
    app.cleanup_ctx.append(_closing(maintenance.lost_sessions.aclose))
    app.cleanup_ctx.append(_closing(dispatcher.aclose))
    background_inboxes = Inboxes(clients.background, keys, events, settings)
    background_dispatcher = Dispatcher(clients.background, keys, background_inboxes, events)
    app.cleanup_ctx.append(_running(maintenance, background_dispatcher, settings))
    app.on_shutdown.append(_end_streams)

    app.on_response_prepare.append(add_security_headers)
    routes = [
        *health_routes.routes,
        *openapi.routes(settings),
        *session_routes.routes,
        *message_routes.routes,
        *event_routes.routes,
        *inbox_routes.routes,
    ]
    app.add_routes([middleware.wrap_route(route) for route in routes])
    return app


class _Maintenance(NamedTuple):
    schema_version: SchemaVersion
    startup_checks: StartupChecks
    sweeper: Sweeper
    lost_sessions: LostSessions
    index_removal: IndexRemoval
    reconciler: Reconciler


def _build_maintenance(
    settings: Settings, client: RedisClient, keys: Keys, events: SessionEvents, access_log: AccessLog
) -> _Maintenance:
    metrics, secret = access_log.metrics, access_log.log.secret
    secret_loader = SecretLoader(client, keys, secret, settings.session_store_timeout_seconds / 4)
    lost_sessions = LostSessions(client, keys, events)
    index_removal = IndexRemoval(client, keys)
    events.on_lost_session, events.on_index_entry_left = lost_sessions.queue, index_removal.queue_ended
    index_repair = IndexRepair(client, keys, index_removal, owner_index_lifetime_ms=settings.owner_index_lifetime_ms)
    return _Maintenance(
        schema_version=SchemaVersion(client, keys, secret_loader),
        startup_checks=StartupChecks(client, keys, events),
        sweeper=Sweeper(client, keys, events, metrics, retention_ms=settings.retention_ms),
        lost_sessions=lost_sessions,
        index_removal=index_removal,
        reconciler=Reconciler(client, keys, index_repair, lost_sessions, metrics),
    )


def _build_health(
    settings: Settings, clients: RedisClients, maintenance: _Maintenance, events: SessionEvents, counts: SessionCounts
) -> Health:
    client = clients.background
    interval_seconds = settings.session_sweep_interval_seconds
    reasons = HealthReasons(client, maintenance.sweeper, events, clients.monitor.rejections, interval_seconds)
    return Health(client, maintenance.schema_version, counts, reasons, settings.session_store_timeout_seconds)


def _running(maintenance: _Maintenance, dispatcher: Dispatcher, settings: Settings) -> _CleanupContext:
    """Run the background tasks while the application runs."""

    async def context(_: web.Application) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for task in _background_tasks(maintenance, dispatcher, settings):
                await stack.enter_async_context(task)
            yield

    return context


def _running_authenticator(authenticator: Authenticator) -> _CleanupContext:
    async def context(_: web.Application) -> AsyncIterator[None]:
        authenticator.start()
        yield
        await authenticator.aclose()

    return context


def _background_tasks(
    maintenance: _Maintenance, dispatcher: Dispatcher, settings: Settings
) -> Iterator[AbstractAsyncContextManager[None]]:
    if_supported = maintenance.schema_version.if_supported
    yield run_periodically(
        "the check of Redis",
        maintenance.startup_checks.run,
        every_seconds=CHECK_INTERVAL_SECONDS,
        timeout_seconds=settings.session_store_timeout_seconds,
    )
    yield run_periodically(
        "the sweeper",
        if_supported(maintenance.sweeper.sweep),
        every_seconds=settings.session_sweep_interval_seconds,
        timeout_seconds=SWEEP_TIMEOUT_SECONDS,
    )
    yield run_periodically(
        "the reconciler",
        if_supported(maintenance.reconciler.reconcile_next_shard),
        every_seconds=settings.session_reconcile_interval_seconds,
        timeout_seconds=RECONCILE_TIMEOUT_SECONDS,
    )
    yield run_periodically(
        "the removal of index entries",
        if_supported(maintenance.index_removal.process_queue),
        every_seconds=REMOVAL_INTERVAL_SECONDS,
        timeout_seconds=SWEEP_TIMEOUT_SECONDS,
    )
    if settings.session_max_messages:
        yield run_periodically(
            "the dispatcher",
            if_supported(dispatcher.dispatch_left_entries),
            every_seconds=DISPATCH_INTERVAL_SECONDS,
            timeout_seconds=SWEEP_TIMEOUT_SECONDS,
        )


async def _end_streams(app: web.Application) -> None:
    app[HUB].drain()
    app[INBOX_CONSUMERS].drain()


def _closing(aclose: Callable[[], Awaitable[object]]) -> _CleanupContext:
    async def context(_: web.Application) -> AsyncIterator[None]:
        yield
        await aclose()

    return context
