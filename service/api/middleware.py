"""The middleware around handlers, in one ordered list."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial, wraps
from typing import NamedTuple

from aiohttp import ClientConnectionResetError, web

from service.api.access_log import AccessLog
from service.api.app_keys import CALLER, RATE_LIMIT_STATUS
from service.api.client_address import ClientAddresses
from service.api.cors import KnownHosts, cors, require_own_origin
from service.api.request_headers import credential_of
from service.api.response_bodies import error_response
from service.api.routes import PROBE_PATHS, Handler, Route, path_template_of, redirect_for
from service.api.server.connection import require_http_1
from service.auth.authenticator import Authenticator
from service.errors import (
    Forbidden,
    InternalError,
    MalformedRequest,
    MethodNotAllowed,
    OtherHTTPError,
    PayloadTooLarge,
    RouteNotFound,
    ServiceError,
    SessionNotFound,
    TooManyUnreadPages,
    Unauthorized,
)
from service.maintenance.schema_version import SchemaVersion
from service.observability.audit import CURRENT_ACTOR, Actor, AuditLog
from service.rate_limit.buckets import RateLimitStatus
from service.rate_limit.limiter import RateLimiter
from service.settings import MAX_BODY_BYTES, Settings

ApplicationMiddleware = Callable[[Handler], Handler]
RouteMiddleware = Callable[[Handler, Route], Handler]

MAX_CONCURRENT_PAGES = 8
"""Number of pages that a process reads from Redis at the same time. Further requests wait."""

MAX_UNSENT_BYTES = 32 * 1024 * 1024
"""Further pages are rejected while connections that received pages have more unsent bytes than this."""

_EXPECTATION_FAILED = OtherHTTPError(417, "Expectation Failed")
_DISCONNECTED = MalformedRequest("The client disconnected before it received 100 Continue.")

_log = logging.getLogger(__name__)


class Middleware(NamedTuple):
    """All middleware of an application, outermost first.

    Middleware that is off, or that a route does not need, returns the handler itself.
    """

    for_application: tuple[ApplicationMiddleware, ...]
    """Handles every request, also requests without a route."""
    for_routes: tuple[RouteMiddleware, ...]
    """Handles requests that match a route."""

    def wrap_application(self, handler: Handler) -> Handler:
        for middleware in reversed(self.for_application):
            handler = middleware(handler)
        return handler

    def wrap_route(self, route: Route) -> web.RouteDef:
        handler = route.handler
        for middleware in reversed(self.for_routes):
            handler = middleware(handler, route)
        return web.route(route.method, route.path, handler)


MIDDLEWARE = web.AppKey("middleware", Middleware)


def build_middleware(
    settings: Settings,
    access_log: AccessLog,
    tracing: ApplicationMiddleware | None,
    schema_version: SchemaVersion,
    rate_limiter: RateLimiter | None,
    authenticator: Authenticator | None,
    audit: AuditLog | None,
) -> Middleware:
    addresses = ClientAddresses(settings.trusted_networks)
    return Middleware(
        for_application=(
            access_log.middleware,
            *([] if tracing is None else [tracing]),
            cors(settings.cors_origins),
            handle_errors(settings.session_error_format),
        ),
        for_routes=(
            require_known_host(settings),
            require_schema_version(schema_version),
            limit_addresses(rate_limiter, addresses),
            authenticate(authenticator, addresses, audit),
            limit_callers(rate_limiter),
            provide_actor(audit, addresses),
            limit_pages(PageLimiter()),
        ),
    )


def handle_errors(error_format: str) -> ApplicationMiddleware:
    """Turn exceptions into error responses. Log unexpected exceptions and answer 500.

    This is no aiohttp middleware: those do not see the errors that aiohttp raises before it finds a handler.
    """

    def wrap(handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                require_http_1(request)
                return await handler(request)
            except ServiceError as error:
                return respond(request, error)
            except web.HTTPNotFound as error:
                return await redirect_or_error(request, error)
            except web.HTTPException as error:
                return respond(request, _service_error(request, error))
            except ClientConnectionResetError:
                return error_response(_DISCONNECTED, error_format)  # only logged
            except Exception:
                if not request.headers.get("Expect", "").isascii():
                    return error_response(_EXPECTATION_FAILED, error_format)  # aiohttp failed to parse it
                _log.exception("a request failed")
                return respond(request, InternalError())

        return handle

    async def redirect_or_error(request: web.Request, error: web.HTTPException) -> web.StreamResponse:
        try:
            redirect = await redirect_for(request)
        except web.HTTPMethodNotAllowed as not_allowed:
            redirect, error = None, not_allowed
        return redirect or respond(request, _service_error(request, error))

    def respond(request: web.Request, error: ServiceError) -> web.StreamResponse:
        response = error_response(error, error_format)
        status = request.get(RATE_LIMIT_STATUS)
        if status is not None:
            response.headers.update(status.headers())
        return response

    return wrap


def require_known_host(settings: Settings) -> RouteMiddleware:
    """Without authentication, reject requests to other hosts, and changes by web pages of other origins.

    Probes and metrics are exempt, because orchestrators use any name or address.
    """
    hosts, origins = KnownHosts(settings.host, settings.allowed_hosts), settings.cors_origins

    def wrap(handler: Handler, route: Route) -> Handler:
        if settings.requires_authentication or route.path in PROBE_PATHS:
            return handler

        @wraps(handler)
        async def handle(request: web.Request) -> web.StreamResponse:
            hosts.require(request)
            require_own_origin(request, origins)
            return await handler(request)

        return handle

    return wrap


def require_schema_version(schema_version: SchemaVersion) -> RouteMiddleware:
    """Answer 503 unless this version can read the data in Redis."""

    def wrap(handler: Handler, route: Route) -> Handler:
        if not route.serves_sessions:
            return handler

        @wraps(handler)
        async def handle(request: web.Request) -> web.StreamResponse:
            if not schema_version.is_supported:
                await schema_version.require_supported()
            return await handler(request)

        return handle

    return wrap


def limit_addresses(limiter: RateLimiter | None, addresses: ClientAddresses) -> RouteMiddleware:
    """Count requests by client address, and failed lookups by address and caller."""

    def wrap(handler: Handler, route: Route) -> Handler:
        if limiter is None:
            return handler
        return limit_requests(limiter, handler, route) if route.serves_sessions else limit_lookups(limiter, handler)

    def limit_requests(limiter: RateLimiter, handler: Handler, route: Route) -> Handler:
        names_session = route.names_session

        @wraps(handler)
        async def handle(request: web.Request) -> web.StreamResponse:
            status = request[RATE_LIMIT_STATUS] = RateLimitStatus()
            address = addresses.address_of(request)
            await limiter.count_request(address, status, names_session=names_session)
            try:
                response = await handler(request)
            except (SessionNotFound, Unauthorized) as error:
                if _is_failed_lookup(error):
                    await limiter.count_failed_lookup(address, request.get(CALLER), status)
                raise
            response.headers.update(status.headers())
            return response

        return handle

    def limit_lookups(limiter: RateLimiter, handler: Handler) -> Handler:
        @wraps(handler)
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except Unauthorized as error:
                status = request[RATE_LIMIT_STATUS] = RateLimitStatus()
                if _is_failed_lookup(error):
                    await limiter.count_failed_lookup(addresses.address_of(request), None, status)
                raise

        return handle

    return wrap


def authenticate(
    authenticator: Authenticator | None, addresses: ClientAddresses, audit: AuditLog | None
) -> RouteMiddleware:
    """Find the caller and require the permission of the route. Audit requests without permission."""

    def wrap(handler: Handler, route: Route) -> Handler:
        permission = route.permission
        if authenticator is None or permission is None:
            return handler

        @wraps(handler)
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                credential = credential_of(request)
                caller = authenticator.find_caller(credential) or await authenticator.verify(credential)
                request[CALLER] = caller
                permission.require(caller)
                return await handler(request)
            except (Unauthorized, Forbidden) as error:
                if audit is not None:
                    _audit_rejection(audit, addresses, request, error)
                raise

        return handle

    return wrap


def limit_callers(limiter: RateLimiter | None) -> RouteMiddleware:
    """Count requests by caller."""

    def wrap(handler: Handler, route: Route) -> Handler:
        if limiter is None or not limiter.limits_callers or not route.serves_sessions:
            return handler
        names_session = route.names_session

        @wraps(handler)
        async def handle(request: web.Request) -> web.StreamResponse:
            await limiter.count_caller_request(request[CALLER], request[RATE_LIMIT_STATUS], names_session=names_session)
            return await handler(request)

        return handle

    return wrap


def provide_actor(audit: AuditLog | None, addresses: ClientAddresses) -> RouteMiddleware:
    """Let the audit log find the caller and the address of a request."""

    def wrap(handler: Handler, route: Route) -> Handler:
        if audit is None or not route.is_audited:
            return handler

        @wraps(handler)
        async def handle(request: web.Request) -> web.StreamResponse:
            CURRENT_ACTOR.set(partial(_actor_of, request, addresses))
            return await handler(request)

        return handle

    return wrap


class PageLimiter:
    """Limits the pages that are being read, and the bytes of pages that clients have not read."""

    def __init__(self) -> None:
        self._reading = asyncio.Semaphore(MAX_CONCURRENT_PAGES)
        self._transports: set[asyncio.Transport] = set()
        """The transports that may have unsent pages."""

    async def respond(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Call a handler that returns a page. Raises TooManyUnreadPages."""
        async with self._reading:
            if self._unsent_bytes() > MAX_UNSENT_BYTES:
                raise TooManyUnreadPages
            response = await handler(request)
        if request.transport is not None:
            self._transports.add(request.transport)  # the response is written before another task runs
        return response

    def _unsent_bytes(self) -> int:
        unsent = {transport: transport.get_write_buffer_size() for transport in self._transports}
        self._transports = {transport for transport, size in unsent.items() if size}
        return sum(unsent.values())


def limit_pages(limiter: PageLimiter) -> RouteMiddleware:
    """Limit the memory of pages that are being read, and of pages that clients have not read."""

    def wrap(handler: Handler, route: Route) -> Handler:
        if not route.returns_page:
            return handler

        @wraps(handler)
        async def handle(request: web.Request) -> web.StreamResponse:
            return await limiter.respond(request, handler)

        return handle

    return wrap


def _service_error(request: web.BaseRequest, error: web.HTTPException) -> ServiceError:
    match error:
        case web.HTTPNotFound():
            return RouteNotFound(f"No route matches {request.rel_url.path}.")
        case web.HTTPMethodNotAllowed():
            return MethodNotAllowed(error.method, ", ".join(sorted(error.allowed_methods)))
        case web.HTTPRequestEntityTooLarge():
            return PayloadTooLarge(MAX_BODY_BYTES)
        case _:
            return OtherHTTPError(error.status, error.reason)


def _is_failed_lookup(error: SessionNotFound | Unauthorized) -> bool:
    return not isinstance(error, Unauthorized) or error.is_failed_lookup


def _audit_rejection(
    audit: AuditLog, addresses: ClientAddresses, request: web.Request, error: Unauthorized | Forbidden
) -> None:
    audit.record(
        "access",
        outcome="refused",
        actor=partial(_actor_of, request, addresses),
        session=request.match_info.get("session_id"),
        method=request.method,
        route=path_template_of(request),
        status=error.status,
        **error.facts,
    )


def _actor_of(request: web.Request, addresses: ClientAddresses) -> Actor:
    address = addresses.address_of(request)
    caller = request.get(CALLER)
    if caller is None:
        return Actor("anonymous", address=address)
    return Actor(caller.kind, caller.name, address)
