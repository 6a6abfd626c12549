"""Cross-origin requests (CORS) from the origins in the settings.

A preflight request has no key, so it needs no authentication. The service uses no cookies and allows no credentials.
"""

import re
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
_ALLOW_ORIGIN = "Access-Control-Allow-Origin"
_ORIGIN_LINE = re.compile(rb"\norigin:[ \t]*([!-~]*)[ \t]*\r?\n", re.IGNORECASE)


def cors(origins: Collection[str]) -> Callable[[Handler], Handler]:
    """Return middleware that lets pages of these origins call the service. Its handler must raise no exceptions."""

    def wrap(handler: Handler) -> Handler:
        if not origins:
            return handler

        async def handle(request: web.Request) -> web.StreamResponse:
            response = await handler(request)
            headers = headers_for(request.headers.get("Origin"), origins)
            if _ALLOW_ORIGIN in headers and _is_preflight(request) and response.status == 405:
                response = _preflight_response()
            response.headers.update(headers)
            return response

        return handle

    return wrap


def headers_for(origin: str | None, origins: Collection[str]) -> dict[str, str]:
    """Return the headers of each response to this origin."""
    if not origins:
        return {}
    is_any_allowed = ANY_ORIGIN in origins
    headers = {} if is_any_allowed else {"Vary": "Origin"}
    if origin is not None and (is_any_allowed or origin in origins):
        headers[_ALLOW_ORIGIN] = ANY_ORIGIN if is_any_allowed else origin
        headers["Access-Control-Expose-Headers"] = _EXPOSED_HEADERS
    return headers


def find_origin(head: bytes) -> str | None:
    """Return the last Origin in a part of one or more request heads, which need not be valid."""
    origins = _ORIGIN_LINE.findall(head)
    return origins[-1].decode("latin-1") if origins else None


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
