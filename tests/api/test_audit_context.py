"""Tests of the audit middleware."""

import pytest

from service.api.client_address import ClientAddresses
from service.api.middleware import provide_actor
from service.api.session_routes import routes
from service.observability.audit import Actor, AuditLog
from service.shared_secret import SharedSecret

AUDITED = {"create", "delete", "revoke", "put_policy", "delete_policy"}
AUDIT = AuditLog(SharedSecret(), str, lambda _: None, Actor("service"))


@pytest.mark.parametrize(("audit", "wrapped"), [(AUDIT, AUDITED), (None, set())], ids=["on", "off"])
def test_only_audited_routes_are_wrapped(audit: AuditLog | None, wrapped: set[str]) -> None:
    middleware = provide_actor(audit, ClientAddresses([]))

    changed = [route for route in routes if middleware(route.handler, route) is not route.handler]

    assert {getattr(route.handler, "__name__", "") for route in changed} == wrapped
