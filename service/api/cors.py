"""Cross-origin requests (CORS) from the origins in the settings.

A preflight request has no key, so it needs no authentication. The service uses no cookies and allows no credentials.
"""

from collections.abc import Callable, Collection

from aiohttp import web

from service.api.request_headers import API_KEY_HEADER
from service.api.routes import Handler

ANY_ORIGIN = "*"

_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
_REQUEST_HEADERS = (
    f"Authorization, Content-Type, Idempotency-Key, If-Match, {API_KEY_HEADER}, X-Request-ID, traceparent, tracestate"
)
_EXPOSED_HEADERS = "ETag, Idempotency-Replayed, Location, RateLimit, RateLimit-Policy, Retry-After, X-Request-ID"
_MAX_AGE_SECONDS = "600"


def cors(origins: Collection[str]) -> Callable[[Handler], Handler]:
    """Return middleware that lets pages of these origins call the service. Its handler must raise no exceptions."""
    is_any_allowed = ANY_ORIGIN in origins

    def wrap(handler: Handler) -> Handler:
        if not origins:
            return handler

        async def handle(request: web.Request) -> web.StreamResponse:
            origin = request.headers.get("Origin")
            response = await handler(request)
            is_allowed = origin is not None and (is_any_allowed or origin in origins)
            if is_allowed and _is_preflight(request) and response.status == 405:
                response = _preflight_response()
            if not is_any_allowed:
                response.headers["Vary"] = "Origin"
            if is_allowed:
                response.headers["Access-Control-Allow-Origin"] = ANY_ORIGIN if is_any_allowed else str(origin)
                response.headers["Access-Control-Expose-Headers"] = _EXPOSED_HEADERS
            return response

        return handle

    return wrap


def _is_preflight(request: web.Request) -> bool:
    return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers


def _preflight_response() -> web.Response:
    """Return the same answer for every path that exists."""
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": _REQUEST_HEADERS,
            "Access-Control-Max-Age": _MAX_AGE_SECONDS,
        },
    )
