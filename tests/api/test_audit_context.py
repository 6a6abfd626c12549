"""Who asked and from where is at hand where the audit tells of it, and costs nothing where it does not."""

from collections.abc import Iterable
from typing import cast

import pytest
from aiohttp import web

from service.api import session_routes
from service.api.audit_context import audited

RATE_LIMIT_STATUS = {"create", "delete", "revoke", "put_policy", "delete_policy"}
ROUTES = list(cast(Iterable[web.RouteDef], session_routes.routes))


@pytest.mark.parametrize(("is_on", "wrapped"), [(True, RATE_LIMIT_STATUS), (False, set())])
def test_only_what_the_audit_tells_of_is_wrapped(is_on: bool, wrapped: set[str]) -> None:
    routes = list(audited(ROUTES, is_on=is_on))

    differing = {
        before.handler.__name__
        for before, after in zip(ROUTES, routes, strict=True)
        if after.handler is not before.handler
    }
    assert differing == wrapped
