"""Paths and methods that do not exist."""

import pytest

from tests.bad_input.helpers import UNKNOWN_ID
from tests.conftest import HttpClient
from tests.test_walkthrough import SESSIONS

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", SESSIONS, "POST"),
        ("PATCH", SESSIONS, "GET"),
        ("OPTIONS", SESSIONS, "DELETE"),
        ("PUT", f"{SESSIONS}/{UNKNOWN_ID}", "GET"),
        ("POST", f"{SESSIONS}/{UNKNOWN_ID}", "DELETE"),
        ("PATCH", f"{SESSIONS}/{UNKNOWN_ID}", "HEAD"),
        ("OPTIONS", f"{SESSIONS}/{UNKNOWN_ID}", "GET"),
        ("GET", f"{SESSIONS}/{UNKNOWN_ID}/heartbeat", "POST"),
        ("DELETE", f"{SESSIONS}/{UNKNOWN_ID}/heartbeat", "POST"),
        ("GET", f"{SESSIONS}/{UNKNOWN_ID}/renew", "POST"),
        ("PUT", f"{SESSIONS}/{UNKNOWN_ID}/renew", "POST"),
        ("GET", f"{SESSIONS}/{UNKNOWN_ID}/timeout", "PATCH"),
        ("POST", f"{SESSIONS}/{UNKNOWN_ID}/timeout", "PATCH"),
        ("PUT", f"{SESSIONS}/{UNKNOWN_ID}/metadata", "PATCH"),
        ("POST", f"{SESSIONS}/health", "GET"),
        ("POST", "/livez", "GET"),
        ("DELETE", "/readyz", "GET"),
    ],
)
async def test_the_error_of_a_wrong_method_names_the_allowed_ones(
    service: HttpClient, method: str, path: str, allowed: str
) -> None:
    response = await service.request(method, path)

    error = await response.json()
    methods = response.headers["Allow"].split(", ")
    assert (response.status, error["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert allowed in methods
    assert method not in methods
    assert error["details"]["allowed"] == methods


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api",
        "/api/messaging",
        "/API/messaging/sessions",
        f"{SESSIONS}/",
        f"{SESSIONS}/{UNKNOWN_ID}/",
        f"{SESSIONS}/{UNKNOWN_ID}/nonsense",
        f"{SESSIONS}/{UNKNOWN_ID}/heartbeat/renew",
        f"{SESSIONS}//heartbeat",
        "/livez/",
        "/favicon.ico",
        "/%00",
        "/é",
    ],
)
async def test_other_paths_are_not_found(service: HttpClient, path: str) -> None:
    response = await service.get(path)

    assert response.status == 404
    assert (await response.json())["code"] == "NOT_FOUND"
