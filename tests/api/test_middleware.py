"""Middleware wraps only the routes that need it."""

import pytest
from aiohttp import web

from service.api.client_address import ClientAddresses
from service.api.middleware import Middleware, authenticate, limit_addresses, limit_callers, provide_actor
from service.api.routes import Handler, Route, RouteTable
from service.api.session_routes import routes
from service.auth.authenticator import build_authenticator
from service.auth.scopes import PUBLIC, READ
from service.observability.audit import Actor, AuditLog
from service.settings import Settings
from service.shared_secret import SharedSecret
from tests.auth.conftest import ENTRIES

AUDITED = {"create", "delete", "revoke", "put_policy", "delete_policy"}
AUDIT_LOG = AuditLog(SharedSecret(), str, lambda _: None, Actor("service"))
ADDRESSES = ClientAddresses([])


async def respond(_: web.Request) -> web.StreamResponse:
    return web.Response()


PUBLIC_ROUTE = Route("GET", "/public", respond, PUBLIC)
PROTECTED_ROUTE = Route("GET", "/protected", respond, READ)


@pytest.mark.parametrize(("audit_log", "wrapped"), [(AUDIT_LOG, AUDITED), (None, set())], ids=["on", "off"])
def test_only_audited_routes_provide_an_actor(audit_log: AuditLog | None, wrapped: set[str]) -> None:
    middleware = provide_actor(audit_log, ADDRESSES)

    changed = [route for route in routes if middleware(route.handler, route) is not route.handler]

    assert {getattr(route.handler, "__name__", "") for route in changed} == wrapped


def test_only_routes_with_a_permission_authenticate() -> None:
    middleware = authenticate(build_authenticator(Settings(session_api_keys=ENTRIES)), ADDRESSES, None)

    assert middleware(respond, PUBLIC_ROUTE) is respond
    assert middleware(respond, PROTECTED_ROUTE) is not respond


def test_middleware_that_is_off_returns_the_handler() -> None:
    middleware = (authenticate(None, ADDRESSES, None), limit_addresses(None, ADDRESSES), limit_callers(None))

    assert [wrap(respond, PROTECTED_ROUTE) for wrap in middleware] == [respond] * 3


async def test_the_first_middleware_is_the_outermost() -> None:
    order: list[str] = []

    def wrap(name: str, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            order.append(name)
            return await handler(request)

        return handle

    middleware = Middleware(
        for_application=(lambda handler: wrap("first", handler), lambda handler: wrap("second", handler)),
        for_routes=(),
    )

    await middleware.wrap_application(respond)(None)  # type: ignore[arg-type]

    assert order == ["first", "second"]


def test_a_route_table_registers_handlers_with_their_requirements() -> None:
    table = RouteTable(serve_sessions=True)

    table.delete("/sessions/{session_id}", permission=READ, is_audited=True)(respond)

    (route,) = table
    assert route == Route("DELETE", "/sessions/{session_id}", respond, READ, serves_sessions=True, is_audited=True)
    assert route.names_session
