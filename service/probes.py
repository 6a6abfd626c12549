"""What orchestrators and operators ask: is it alive, is it ready, how many sessions are there."""

from datetime import UTC, datetime

from aiohttp import web

from service.api import SESSIONS
from service.app_keys import HEALTH
from service.errors import StoreUnavailable
from service.wire import json_response

routes = web.RouteTableDef()


@routes.get("/livez")
async def livez(_: web.Request) -> web.Response:
    return json_response({"status": "alive"})


@routes.get("/readyz")
async def readyz(request: web.Request) -> web.Response:
    obstacle = await request.app[HEALTH].why_not_ready()
    if obstacle is None:
        return json_response({"status": "ready"})
    return json_response({"status": "not ready", "reason": obstacle}, status=503, headers={"Retry-After": "1"})


@routes.get(SESSIONS + "/health")
async def health(request: web.Request) -> web.Response:
    health = request.app[HEALTH]
    try:
        active, expiring_soon = await health.counts()
    except StoreUnavailable as error:
        return json_response(_report("unhealthy", None, None, health.uptime_seconds), status=503, headers=error.headers)
    return json_response(_report("healthy", active, expiring_soon, health.uptime_seconds))


def _report(status: str, active: int | None, expiring_soon: int | None, uptime_seconds: float) -> dict[str, object]:
    return {
        "status": status,
        "activeSessions": active,
        "expiringSoon": expiring_soon,
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "uptime": round(uptime_seconds, 3),
    }
