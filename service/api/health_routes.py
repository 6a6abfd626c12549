"""The routes and handlers of probes, health and metrics."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from service.api.app_keys import ACCESS_LOG, HEALTH
from service.api.response_bodies import json_response
from service.api.routes import RouteTable
from service.api.session_routes import SESSIONS
from service.auth.scopes import ADMIN, COUNT, PUBLIC
from service.errors import RETRY_AFTER_SECONDS, StoreUnavailable
from service.maintenance.health import Counts, Health, Reason, reason_of

routes = RouteTable(serve_sessions=False)


@routes.get("/livez", permission=PUBLIC)
async def livez(_: web.Request) -> web.StreamResponse:
    return json_response({"status": "alive"})


@routes.get("/readyz", permission=PUBLIC)
async def readyz(request: web.Request) -> web.StreamResponse:
    reason = await request.app[HEALTH].readiness_problem()
    if reason is None:
        return json_response({"status": "ready"})
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return json_response({"status": "not ready", "reason": reason}, status=503, headers=headers)


@routes.get(SESSIONS + "/health", permission=COUNT)
async def health(request: web.Request) -> web.StreamResponse:
    health = request.app[HEALTH]
    try:
        counts, reasons = await health.counts(), await health.degradation()
    except StoreUnavailable as error:
        return json_response(_report(health, "unhealthy", None, [reason_of(error)]), status=503, headers=error.headers)
    return json_response(_report(health, "degraded" if reasons else "healthy", counts, reasons))


@routes.get("/metrics", permission=ADMIN)
async def metrics(request: web.Request) -> web.StreamResponse:
    """Return the metrics of this replica, with session counts of the whole store (NaN if it is unavailable)."""
    metrics = request.app[ACCESS_LOG].metrics
    try:
        counts: tuple[float, float] = await request.app[HEALTH].counts()
    except StoreUnavailable:
        counts = math.nan, math.nan
    for gauge, number in zip((metrics.active, metrics.near_expiration), counts, strict=True):
        gauge.set(number)
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return web.Response(
        body=encode(metrics.registry), headers={"Content-Type": content_type, "Cache-Control": "no-store"}
    )


def _report(health: Health, status: str, counts: Counts | None, reasons: Sequence[Reason]) -> dict[str, object]:
    return {
        "status": status,
        "reasons": [reason._asdict() for reason in reasons],
        "activeSessions": counts and counts.active_sessions,
        "expiringSoon": counts and counts.expiring_soon,
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "uptime": round(health.uptime_seconds, 3),
    }
