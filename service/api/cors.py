"""Pages of other sites: browsers let those of the named origins call the service and read its answers, and no others.

Nothing here is asked of a caller's key: browsers ask before they send one. Cookies are none of the service's, so no
answer allows credentials.
"""

from collections.abc import Collection

from aiohttp import web

from service.api.middleware import Handle

ANY = "*"

_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
_REQUEST_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, If-Match, X-API-KEY, X-Request-ID, traceparent, tracestate"
)
_EXPOSED = "ETag, Idempotency-Replayed, Location, RateLimit, RateLimit-Policy, Retry-After, X-Request-ID"
_MAX_AGE_SECONDS = "600"


def shared(handle: Handle, origins: Collection[str]) -> Handle:
    """The same for pages of these origins, where there are any. `handle` raises no refusal, but answers with it."""
    if not origins:
        return handle
    any_origin = ANY in origins

    async def answer(request: web.Request) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        response = await handle(request)
        is_allowed = origin is not None and (any_origin or origin in origins)
        if is_allowed and _asks_beforehand(request) and response.status == 405:
            response = _go_ahead()
        if not any_origin:
            response.headers["Vary"] = "Origin"
        if is_allowed:
            response.headers["Access-Control-Allow-Origin"] = ANY if any_origin else str(origin)
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED
        return response

    return answer


def _asks_beforehand(request: web.Request) -> bool:
    return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers


def _go_ahead() -> web.Response:
    """To a page that asks what it may send to a path that there is: the same everywhere, for all calls."""
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": _REQUEST_HEADERS,
            "Access-Control-Max-Age": _MAX_AGE_SECONDS,
        },
    )
