"""Requests of web pages: cross-origin requests (CORS) and DNS rebinding.

A preflight request has no key, so it needs no authentication. The service uses no cookies and allows no credentials.
"""

import re
from collections.abc import Callable, Collection
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from aiohttp import web

from service.api.request_headers import API_KEY_HEADER
from service.api.routes import Handler
from service.errors import ForeignOrigin, MisdirectedRequest

ANY_ORIGIN = "*"
ANY_HOST = "*"

_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
_REQUEST_HEADERS = (
    f"Authorization, Content-Type, Idempotency-Key, If-Match, Last-Event-ID, {API_KEY_HEADER}, X-Request-ID, "
    "traceparent, tracestate"
)
_EXPOSED_HEADERS = "ETag, Idempotency-Replayed, Location, RateLimit, RateLimit-Policy, Retry-After, X-Request-ID"
_MAX_AGE_SECONDS = "600"
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_CACHE_SIZE = 1024
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


class KnownHosts:
    """The values of Host that a service without authentication accepts.

    DNS rebinding lets a web page send requests under its own name to an address that only the visitor can reach.
    """

    def __init__(self, host: str, allowed: Collection[str]) -> None:
        self._names = {"localhost", host.lower(), *allowed}
        self._is_any_allowed = ANY_HOST in self._names
        self._is_known = lru_cache(_CACHE_SIZE)(self._is_name_or_loopback)

    def require(self, request: web.Request) -> None:
        """Raises MisdirectedRequest.

        The address of this end of the connection is a known host. Requests without Host do not come from a browser.
        """
        if self._is_any_allowed:
            return
        for host in request.headers.getall("Host", ()):
            if not self._is_known(host) and not _is_local_address(host, request):
                raise MisdirectedRequest(_to_ascii(host))

    def _is_name_or_loopback(self, host: str) -> bool:
        name = _without_port(host)
        address = _address(name)
        return name in self._names or (address is not None and address.is_loopback)


def require_own_origin(request: web.Request, origins: Collection[str]) -> None:
    """Raises ForeignOrigin if a page of another host, which is not in `origins`, sends a change."""
    origin = request.headers.get("Origin")
    if origin is None or request.method in _SAFE_METHODS or origin in origins:
        return
    if origin.partition("://")[2] != request.headers.get("Host", "").lower():
        raise ForeignOrigin(_to_ascii(origin))


def _is_local_address(host: str, request: web.Request) -> bool:
    address = _address(_without_port(host))
    own = None if request.transport is None else request.transport.get_extra_info("sockname")
    return address is not None and isinstance(own, tuple) and address == _address(own[0])


def _without_port(host: str) -> str:
    """Return a name in lower case without a final dot, or an address without brackets."""
    if host.startswith("["):
        address, bracket, _ = host[1:].partition("]")
        return address if bracket else host
    return host.lower().partition(":")[0].removesuffix(".")


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(name)
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _to_ascii(header: str) -> str:
    """Replace other characters: headers may contain surrogates, which JSON cannot."""
    return header.encode("ascii", "replace").decode()
