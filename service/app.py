"""Wiring: what the application is made of, and in which order it is taken down."""

from collections.abc import AsyncIterator, Iterable
from typing import cast

from aiohttp import web

from service.access.configured import guard_of
from service.access.guard import guarded
from service.checks.degradation import Degradation
from service.checks.health import Health
from service.checks.layout import Layout
from service.checks.shared_secret import SharedSecret
from service.http import api, documentation, probes
from service.http.addresses import Addresses
from service.http.app_keys import ADDRESSES, DIRECTORY, HEALTH, POLICIES, REVOCATION, SETTINGS, STORE, WATCH
from service.http.origins import audited
from service.http.safe_headers import make_safe
from service.http.shortcut import Shortcut
from service.http.watch import Watch
from service.keeping.delisting import ROUND_SECONDS as DELIST_SECONDS
from service.keeping.delisting import Delisting
from service.keeping.losses import Losses
from service.keeping.reconciler import Reconciler
from service.keeping.relisting import Relisting
from service.keeping.rounds import repeated
from service.keeping.sweeper import Sweeper
from service.keeping.upkeep import ROUND_SECONDS as UPKEEP_SECONDS
from service.keeping.upkeep import Upkeep
from service.lanes.clients import Clients
from service.life.keys import Keys
from service.life.lifecycle import Lifecycle
from service.life.policies import Policies
from service.life.store import Store
from service.limits.configured import door_of
from service.limits.door import beside_limits, limited
from service.listing.census import Census
from service.listing.directory import Directory
from service.listing.revocation import Revocation
from service.settings import MAX_BODY_BYTES, Settings
from service.telemetry.audit import Audit

SWEEP_TIMEOUT_SECONDS = 30
RECONCILE_TIMEOUT_SECONDS = 60


def create_app(settings: Settings, clients: Clients, watch: Watch, audit: Audit | None = None) -> web.Application:
    """The service over the given clients, which it closes when it is cleaned up. `watch` is for its runner to keep.

    Raises CannotStart where the keys of callers cannot be read.
    """
    keys = Keys(settings.session_key_prefix, capped=settings.caps is not None)
    timeout_seconds = settings.session_store_timeout_seconds
    metrics = watch.metrics
    lifecycle = Lifecycle(metrics, watch.log, watch.later, audit)
    census = Census(clients.wide, keys)
    policies = Policies(clients.lane, keys, lifecycle, settings)
    beside = clients.beside
    upkeep = Upkeep(beside, keys, lifecycle)
    sweeper = Sweeper(beside, keys, lifecycle, metrics, retention_ms=settings.retention_ms)
    losses, delisting = Losses(beside, keys, lifecycle), Delisting(beside, keys)
    lifecycle.when_lost_is_met, lifecycle.when_left_behind = losses.met, delisting.left_behind
    relisting = Relisting(beside, keys, delisting, lookup_life_ms=settings.lookup_life_ms)
    reconciler = Reconciler(beside, keys, relisting, losses, metrics)
    degradation = Degradation(
        beside, sweeper, lifecycle, clients.watch.refusals, settings.session_sweep_interval_seconds
    )
    layout = Layout(beside, keys, SharedSecret(beside, keys, watch.log.secret, timeout_seconds / 4))
    health = Health(beside, layout, census, degradation, timeout_seconds)

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
        watch.later.catch_up()
        await clients.aclose()

    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app[SETTINGS] = settings
    app[ADDRESSES] = addresses = Addresses(settings.trusted_networks)
    app[HEALTH] = health
    app[WATCH] = watch
    app[POLICIES] = policies
    app[STORE] = Store(
        clients.lane,
        keys,
        lifecycle,
        policies,
        watch.log.secret,
        retention_ms=settings.retention_ms,
        lookup_life_ms=settings.lookup_life_ms,
        patience_seconds=timeout_seconds,
        caps=settings.caps,
        record_life_ms=settings.record_life_ms,
        id_format=settings.session_id_format,
    )
    app[DIRECTORY] = Directory(clients.wide, keys, census, delisting.met)
    app[REVOCATION] = Revocation(clients.wide, keys, lifecycle)
    app.cleanup_ctx.append(store_in_use)
    app.on_response_prepare.append(make_safe)
    door = door_of(settings, addresses, clients.prompt, keys, metrics)
    guard = guard_of(settings, clients.lane, keys, None if door is None else door.admit, audit)
    if guard is not None:
        app.on_cleanup.append(lambda _: guard.aclose())
    app.router.register_resource(Shortcut(api.SESSIONS, "session_id", app.router))
    told = audited(cast(Iterable[web.RouteDef], api.routes), is_on=audit is not None)
    about_sessions = limited(guarded(told, guard), door)
    others = [*cast(Iterable[web.RouteDef], probes.routes), *documentation.routes(settings)]
    app.add_routes(beside_limits(guarded(others, guard), door))
    app.add_routes([web.route(r.method, r.path, layout.before(r.handler), **r.kwargs) for r in about_sessions])
    return app
