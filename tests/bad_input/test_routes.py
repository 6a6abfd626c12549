"""Paths and methods that do not exist."""

import pytest
from yarl import URL

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
        "/api",
        "/api/messaging",
        "/API/messaging/sessions",
        f"{SESSIONS}/{UNKNOWN_ID}//",
        f"{SESSIONS}/{UNKNOWN_ID}/nonsense/",
        f"{SESSIONS}/{UNKNOWN_ID}/nonsense",
        f"{SESSIONS}/{UNKNOWN_ID}/heartbeat/renew",
        f"{SESSIONS}//heartbeat",
        "/favicon.ico",
        "/%00",
        "/é",
    ],
)
async def test_other_paths_are_not_found(service: HttpClient, path: str) -> None:
    response = await service.get(path)

    assert response.status == 404
    assert (await response.json())["code"] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{SESSIONS}?limit=5&cursor=a/%2F%20"),
        ("POST", SESSIONS),
        ("GET", f"{SESSIONS}/{UNKNOWN_ID}"),
        ("PATCH", f"{SESSIONS}/{UNKNOWN_ID}/timeout"),
        ("HEAD", "/docs"),
        ("GET", "/livez"),
        ("GET", f"{SESSIONS}/health"),
    ],
)
async def test_a_trailing_slash_redirects_to_the_path_without_it(service: HttpClient, method: str, path: str) -> None:
    url = service.make_url("/").join(URL(path, encoded=True))
    with_slash = URL(str(url).replace(url.raw_path, f"{url.raw_path}/"), encoded=True)

    response = await service.session.request(method, with_slash, allow_redirects=False)

    assert response.status == 308
    assert with_slash.join(URL(response.headers["Location"], encoded=True)) == url


async def test_the_root_redirects_to_the_documentation(service: HttpClient) -> None:
    response = await service.get("/")

    assert response.status == 200
    assert response.url.path == "/docs"


async def test_the_error_of_a_wrong_method_is_the_same_with_a_trailing_slash(service: HttpClient) -> None:
    response = await service.delete(f"{SESSIONS}/{UNKNOWN_ID}/timeout/")

    assert (response.status, response.headers["Allow"]) == (405, "PATCH")
