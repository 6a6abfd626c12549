"""Build the application from its parts, and clean them up in the same place."""

from collections.abc import AsyncIterator

from aiohttp import web

from service.api import health_routes, openapi, session_routes
from service.api.access_log import AccessLog
from service.api.app_keys import ACCESS_LOG, HEALTH, LISTING, POLICIES, REVOCATION, SETTINGS, STORE
from service.api.middleware import MIDDLEWARE, ApplicationMiddleware, build_middleware
from service.api.security_headers import add_security_headers
from service.auth.authenticator import build_authenticator
from service.maintenance.health import Health, HealthReasons
from service.maintenance.index_repair import REMOVAL_INTERVAL_SECONDS, IndexRemoval, IndexRepair
from service.maintenance.lost_sessions import LostSessions
from service.maintenance.periodic import run_periodically
from service.maintenance.reconciler import Reconciler
from service.maintenance.schema_version import SchemaVersion
from service.maintenance.secret_loader import SecretLoader
from service.maintenance.startup_checks import CHECK_INTERVAL_SECONDS, StartupChecks
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
    access_log: AccessLog,
    audit: AuditLog | None = None,
    tracing: ApplicationMiddleware | None = None,
) -> web.Application:
    """Build the application. Its cleanup closes the clients.

    Raises StartupError if the API key file cannot be loaded.
    """
    keys = build_keys(settings)
    timeout_seconds = settings.session_store_timeout_seconds
    metrics, shared_secret = access_log.metrics, access_log.log.secret
    background = clients.background

    events = SessionEvents(metrics, access_log.log, audit)
    counts = SessionCounts(clients.bulk, keys)
    startup_checks = StartupChecks(background, keys, events)
    sweeper = Sweeper(background, keys, events, metrics, retention_ms=settings.retention_ms)
    lost_sessions, index_removal = LostSessions(background, keys, events), IndexRemoval(background, keys)
    events.on_lost_session, events.on_index_entry_left = lost_sessions.queue, index_removal.queue_ended
    index_repair = IndexRepair(
        background, keys, index_removal, owner_index_lifetime_ms=settings.owner_index_lifetime_ms
    )
    reconciler = Reconciler(background, keys, index_repair, lost_sessions, metrics)
    schema_version = SchemaVersion(background, keys, SecretLoader(background, keys, shared_secret, timeout_seconds / 4))
    health_reasons = HealthReasons(
        background, sweeper, events, clients.monitor.rejections, settings.session_sweep_interval_seconds
    )

    async def run_maintenance(_: web.Application) -> AsyncIterator[None]:
        async with (
            run_periodically(
                "the check of Redis",
                startup_checks.run,
                every_seconds=CHECK_INTERVAL_SECONDS,
                timeout_seconds=timeout_seconds,
            ),
            run_periodically(
                "the sweeper",
                schema_version.if_supported(sweeper.sweep),
                every_seconds=settings.session_sweep_interval_seconds,
                timeout_seconds=SWEEP_TIMEOUT_SECONDS,
            ),
            run_periodically(
                "the reconciler",
                schema_version.if_supported(reconciler.reconcile_next_shard),
                every_seconds=settings.session_reconcile_interval_seconds,
                timeout_seconds=RECONCILE_TIMEOUT_SECONDS,
            ),
            run_periodically(
                "the removal of index entries",
                schema_version.if_supported(index_removal.process_queue),
                every_seconds=REMOVAL_INTERVAL_SECONDS,
                timeout_seconds=SWEEP_TIMEOUT_SECONDS,
            ),
        ):
            yield
        await lost_sessions.aclose()
        await clients.aclose()

    rate_limiter = build_rate_limiter(settings, clients.no_wait, keys, metrics)
    authenticator = build_authenticator(settings)
    middleware = build_middleware(settings, access_log, tracing, schema_version, rate_limiter, authenticator, audit)

    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app[SETTINGS] = settings
    app[HEALTH] = Health(background, schema_version, counts, health_reasons, timeout_seconds)
    app[ACCESS_LOG] = access_log
    app[MIDDLEWARE] = middleware
    app[POLICIES] = Policies(clients.main, keys, events, settings)
    app[STORE] = build_session_store(settings, clients.main, events, shared_secret)
    app[LISTING] = SessionListing(clients.bulk, keys, counts, index_removal.queue_missing)
    app[REVOCATION] = BulkRevocation(clients.bulk, keys, events)
    app.cleanup_ctx.append(run_maintenance)
    app.on_response_prepare.append(add_security_headers)
    if authenticator is not None:
        app.on_cleanup.append(lambda _: authenticator.aclose())
    routes = [*health_routes.routes, *openapi.routes(settings), *session_routes.routes]
    app.add_routes([middleware.wrap_route(route) for route in routes])
    return app
