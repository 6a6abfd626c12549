"""Cross-origin requests with and without SESSION_CORS_ORIGINS."""

import pytest
from aiohttp import ClientResponse

from service.auth.api_keys import new_key
from service.settings import Settings
from service.settings.http import MAX_FIELD_BYTES, MAX_URL_BYTES
from tests.api.raw_http import exchange
from tests.conftest import AGENT, USER, HttpClient
from tests.test_walkthrough import SESSIONS, open_session

ORIGIN = "https://app.example"
SECOND_ORIGIN = "http://localhost:5173"
UNKNOWN_ORIGIN = "https://stranger.example"
KEY, ENTRY = new_key("web", ["write"])
ORIGINS = Settings(session_cors_origins=f"{ORIGIN}, {SECOND_ORIGIN}")
AUTHENTICATED = Settings(session_cors_origins=ORIGIN, session_api_keys=ENTRY)
ANY_ORIGIN = Settings(session_cors_origins="*", session_api_keys=ENTRY)

REQUESTS = {
    "probe": ("GET", "/livez", 200),
    "list": ("GET", SESSIONS, 200),
    "unknown session": ("GET", f"{SESSIONS}/x", 404),
    "unknown path": ("GET", "/nowhere", 404),
    "wrong method": ("PUT", "/livez", 405),
    "invalid request": ("POST", SESSIONS, 415),
    "page": ("GET", "/docs", 200),
    "metrics": ("GET", "/metrics", 200),
}

each_request = pytest.mark.parametrize(("method", "path", "status"), REQUESTS.values(), ids=REQUESTS)


@pytest.fixture
def settings() -> Settings:
    return ORIGINS


def with_settings(settings: Settings) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("settings", [settings], ids=["custom"])


@pytest.mark.parametrize(
    ("setting", "origin"),
    [
        ("https://app.example:443", "https://app.example"),
        ("http://app.example:80", "http://app.example"),
        ("https://app.example:080", "https://app.example:80"),
        ("http://127.0.0.1:5173", "http://127.0.0.1:5173"),
        ("http://[::1]:5173", "http://[::1]:5173"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("chrome-extension://abcdefghijklmnopabcdefghijklmnop", "chrome-extension://abcdefghijklmnopabcdefghijklmnop"),
        (
            "safari-web-extension://7B0C9A5E-1C1B-4C6E-8F6A-0C6C6B8F2F10",
            "safari-web-extension://7B0C9A5E-1C1B-4C6E-8F6A-0C6C6B8F2F10",
        ),
    ],
)
def test_origins_are_those_that_browsers_send(setting: str, origin: str) -> None:
    assert Settings(session_cors_origins=setting).cors_origins == {origin}


async def preflight(client: HttpClient, path: str, origin: str = ORIGIN) -> ClientResponse:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    return await client.options(path, headers=headers)


def access_control_headers(response: ClientResponse) -> list[str]:
    return [name for name in response.headers if name.startswith("Access-Control-")]


@each_request
async def test_only_allowed_origins_may_read_a_response(
    client: HttpClient, method: str, path: str, status: int
) -> None:
    allowed = await client.request(method, path, headers={"Origin": SECOND_ORIGIN})
    unknown = await client.request(method, path, headers={"Origin": UNKNOWN_ORIGIN})
    without = await client.request(method, path)

    is_change = method not in ("GET", "HEAD")
    assert [response.status for response in (allowed, without)] == [status] * 2
    assert unknown.status == (403 if is_change and status != 405 else status)
    assert {response.headers["Vary"] for response in (allowed, unknown, without)} == {"Origin"}
    assert allowed.headers["Access-Control-Allow-Origin"] == SECOND_ORIGIN
    assert access_control_headers(unknown) == access_control_headers(without) == []


@pytest.mark.parametrize("origin", ["null", f"{ORIGIN}.stranger.example", "http://app.example", f"{ORIGIN}:8443"])
async def test_an_origin_must_match_exactly(client: HttpClient, origin: str) -> None:
    response = await client.get("/livez", headers={"Origin": origin})

    assert access_control_headers(response) == []


async def test_pages_may_read_the_headers_of_the_api(client: HttpClient) -> None:
    response = await client.get("/livez", headers={"Origin": ORIGIN})

    exposed = set(response.headers["Access-Control-Expose-Headers"].split(", "))
    assert exposed >= {"ETag", "Location", "Retry-After", "RateLimit", "X-Request-ID", "Idempotency-Replayed"}


@pytest.mark.parametrize("path", [SESSIONS, f"{SESSIONS}/x", f"{SESSIONS}/x/timeout", "/livez", "/metrics"])
async def test_a_preflight_response_allows_all_methods_and_headers(client: HttpClient, path: str) -> None:
    response = await preflight(client, path)

    assert (response.status, await response.read()) == (204, b"")
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert {"GET", "POST", "PUT", "PATCH", "DELETE"} <= set(
        response.headers["Access-Control-Allow-Methods"].split(", ")
    )
    assert {"Authorization", "X-API-KEY", "Content-Type", "If-Match", "Idempotency-Key", "X-Request-ID"} <= set(
        response.headers["Access-Control-Allow-Headers"].split(", ")
    )
    assert response.headers["Access-Control-Max-Age"] == "600"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "Server" not in response.headers
    assert "Access-Control-Allow-Credentials" not in response.headers


async def test_a_preflight_request_of_an_unknown_origin_is_a_wrong_method(client: HttpClient) -> None:
    response = await preflight(client, SESSIONS, UNKNOWN_ORIGIN)

    assert response.status == 405
    assert access_control_headers(response) == []


async def test_a_preflight_request_to_an_unknown_path_is_404(client: HttpClient) -> None:
    assert (await preflight(client, "/nowhere")).status == 404


@with_settings(AUTHENTICATED)
async def test_a_preflight_request_needs_no_key(client: HttpClient) -> None:
    assert (await preflight(client, SESSIONS)).status == 204


@with_settings(AUTHENTICATED)
async def test_pages_may_read_authentication_errors(client: HttpClient) -> None:
    response = await client.get(f"{SESSIONS}/x", headers={"Origin": ORIGIN})

    assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (401, ORIGIN)


@with_settings(ANY_ORIGIN)
async def test_an_asterisk_allows_all_origins(client: HttpClient) -> None:
    headers = {"Origin": UNKNOWN_ORIGIN, "X-API-KEY": KEY}

    response = await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER}, headers=headers)

    assert response.status == 201
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert "Vary" not in response.headers


@with_settings(Settings())
async def test_no_origin_is_allowed_by_default(client: HttpClient) -> None:
    session_id = await open_session(client)
    read = await client.get(f"{SESSIONS}/{session_id}", headers={"Origin": ORIGIN})
    options = await preflight(client, SESSIONS)

    assert (read.status, options.status) == (200, 405)
    assert access_control_headers(read) + access_control_headers(options) == []
    assert "Vary" not in read.headers


# Responses to requests that cannot be parsed

UNREADABLE = {
    "URL too long": (b"/" + b"a" * MAX_URL_BYTES, b"", b"414"),
    "header too large": (b"/livez", b"X-Long: " + b"a" * (MAX_FIELD_BYTES + 1) + b"\r\n", b"431"),
    "invalid header": (b"/livez", b"X Invalid: 1\r\n", b"400"),
}

each_unreadable = pytest.mark.parametrize(("target", "header", "status"), UNREADABLE.values(), ids=UNREADABLE)


def request_bytes(target: bytes, header: bytes, origin: str) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: localhost\r\nOrigin: %b\r\n%b\r\n" % (target, origin.encode(), header)


@each_unreadable
async def test_pages_may_read_errors_of_unreadable_requests(
    client: HttpClient, target: bytes, header: bytes, status: bytes
) -> None:
    received = await exchange(client, request_bytes(target, header, SECOND_ORIGIN))

    assert received.split()[1] == status
    assert b"\r\nAccess-Control-Allow-Origin: %b\r\n" % SECOND_ORIGIN.encode() in received


@each_unreadable
async def test_other_pages_may_not_read_errors_of_unreadable_requests(
    client: HttpClient, target: bytes, header: bytes, status: bytes
) -> None:
    received = await exchange(client, request_bytes(target, header, UNKNOWN_ORIGIN))

    assert received.split()[1] == status
    assert b"Access-Control-" not in received


@with_settings(ORIGINS.model_copy(update={"session_request_timeout_seconds": 0.2}))
async def test_pages_may_read_the_error_of_a_request_that_arrives_too_slowly(client: HttpClient) -> None:
    received = await exchange(client, request_bytes(b"/livez", b"", ORIGIN)[:-2])

    assert received.split()[1] == b"408"
    assert b"\r\nAccess-Control-Allow-Origin: %b\r\n" % ORIGIN.encode() in received
