"""Wiring: what the application is made of, and in which order it is taken down."""

from collections.abc import AsyncIterator

from aiohttp import web

from service.api import health_routes, openapi, session_routes
from service.api.access_log import AccessLog
from service.api.app_keys import ACCESS_LOG, HEALTH, LISTING, POLICIES, REVOCATION, SETTINGS, STORE
from service.api.middleware import MIDDLEWARE, ApplicationMiddleware, build_middleware
from service.api.security_headers import add_security_headers
from service.auth.authenticator import build_authenticator
from service.maintenance.health import Health
from service.maintenance.health_reasons import HealthReasons
from service.maintenance.index_removal import ROUND_SECONDS as DELIST_SECONDS
from service.maintenance.index_removal import IndexRemoval
from service.maintenance.index_repair import IndexRepair
from service.maintenance.lost_sessions import LostSessions
from service.maintenance.periodic import repeated
from service.maintenance.reconciler import Reconciler
from service.maintenance.schema_version import SchemaVersion
from service.maintenance.secret_loader import SecretLoader
from service.maintenance.startup_checks import ROUND_SECONDS as UPKEEP_SECONDS
from service.maintenance.startup_checks import StartupChecks
from service.maintenance.sweeper import Sweeper
from service.observability.audit import AuditLog
from service.rate_limit.limiter import build_rate_limiter
from service.redis_client.factory import RedisClients
from service.sessions.build import build_keys, build_session_store
from service.sessions.counts import SessionCounts
from service.sessions.events import SessionEvents
from service.sessions.listing import SessionListing
from service.sessions.policies import Policies
from service.sessions.revocation import BulkRevocation
from service.settings import MAX_BODY_BYTES, Settings

SWEEP_TIMEOUT_SECONDS = 30
RECONCILE_TIMEOUT_SECONDS = 60


def create_app(
    settings: Settings,
    clients: RedisClients,
    watch: AccessLog,
    audit: AuditLog | None = None,
    tracing: ApplicationMiddleware | None = None,
) -> web.Application:
    """Build the application. Its cleanup closes the clients.

    Raises StartupError if the API key file cannot be loaded.
    """
    keys = build_keys(settings)
    timeout_seconds = settings.session_store_timeout_seconds
    metrics = watch.metrics
    events = SessionEvents(metrics, watch.log, audit)
    session_counts = SessionCounts(clients.bulk, keys)
    policies = Policies(clients.main, keys, events, settings)
    beside = clients.background
    upkeep = StartupChecks(beside, keys, events)
    sweeper = Sweeper(beside, keys, events, metrics, retention_ms=settings.retention_ms)
    losses, delisting = LostSessions(beside, keys, events), IndexRemoval(beside, keys)
    events.on_lost_session, events.on_index_entry_left = losses.met, delisting.left_behind
    relisting = IndexRepair(beside, keys, delisting, owner_index_lifetime_ms=settings.owner_index_lifetime_ms)
    reconciler = Reconciler(beside, keys, relisting, losses, metrics)
    degradation = HealthReasons(
        beside, sweeper, events, clients.monitor.rejections, settings.session_sweep_interval_seconds
    )
    layout = SchemaVersion(beside, keys, SecretLoader(beside, keys, watch.log.secret, timeout_seconds / 4))
    health = Health(beside, layout, session_counts, degradation, timeout_seconds)

    async def store_in_use(_: web.Application) -> AsyncIterator[None]:
        async with (
            repeated("upkeep", upkeep.round, every_seconds=UPKEEP_SECONDS, timeout_seconds=timeout_seconds),
            repeated(
                "the sweeper",
                layout.heeded(sweeper.round),
                every_seconds=settings.session_sweep_interval_seconds,
                timeout_seconds=SWEEP_TIMEOUT_SECONDS,
            ),
            repeated(
                "the reconciler",
                layout.heeded(reconciler.round),
                every_seconds=settings.session_reconcile_interval_seconds,
                timeout_seconds=RECONCILE_TIMEOUT_SECONDS,
            ),
            repeated(
                "delisting",
                layout.heeded(delisting.round),
                every_seconds=DELIST_SECONDS,
                timeout_seconds=SWEEP_TIMEOUT_SECONDS,
            ),
        ):
            yield
        await losses.aclose()
        await clients.aclose()

    rate_limiter = build_rate_limiter(settings, clients.no_wait, keys, metrics)
    authenticator = build_authenticator(settings)
    middleware = build_middleware(settings, watch, tracing, layout, rate_limiter, authenticator, audit)

    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app[SETTINGS] = settings
    app[HEALTH] = health
    app[ACCESS_LOG] = watch
    app[MIDDLEWARE] = middleware
    app[POLICIES] = policies
    app[STORE] = build_session_store(settings, clients.main, events, watch.log.secret)
    app[LISTING] = SessionListing(clients.bulk, keys, session_counts, delisting.met)
    app[REVOCATION] = BulkRevocation(clients.bulk, keys, events)
    app.cleanup_ctx.append(store_in_use)
    app.on_response_prepare.append(add_security_headers)
    if authenticator is not None:
        app.on_cleanup.append(lambda _: authenticator.aclose())
    routes = [*health_routes.routes, *openapi.routes(settings), *session_routes.routes]
    app.add_routes([middleware.wrap_route(route) for route in routes])
    return app
