"""Requests to other hosts and from other origins, with and without authentication."""

import pytest

from service.auth.api_keys import new_key
from service.settings import Settings
from tests.api.raw_http import exchange
from tests.conftest import AGENT, USER, HttpClient
from tests.test_walkthrough import SESSIONS, open_session

KEY, ENTRY = new_key("web", ["admin"])
AUTHENTICATED = Settings(session_api_keys=ENTRY)
FOREIGN = {"Host": "attacker.example:3000"}


@pytest.fixture
def settings() -> Settings:
    return Settings(
        session_allowed_hosts="Sessions.example, 192.0.2.7 2001:db8::7", session_cors_origins="https://a.example"
    )


def with_settings(settings: Settings) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("settings", [settings], ids=["custom"])


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:3000",
        "localhost.",
        "127.0.0.1:3000",
        "127.1.2.3",
        "[::1]:3000",
        "[::ffff:127.0.0.1]",
        "sessions.example",
        "Sessions.Example.:8443",
        "192.0.2.7",
        "[2001:db8::7]:3000",
    ],
)
async def test_known_hosts_are_accepted(client: HttpClient, host: str) -> None:
    response = await client.get(SESSIONS, headers={"Host": host})

    assert response.status == 200


@pytest.mark.parametrize(
    "host",
    [
        "attacker.example",
        "localhost.attacker.example",
        "127.0.0.1.attacker.example",
        "attacker.example:127",
        "192.0.2.8",
        "[2001:db8::8]",
        "0.0.0.0",
        "2130706433",
        "[::1",
        "",
    ],
)
async def test_other_hosts_are_misdirected(client: HttpClient, host: str) -> None:
    response = await client.get(SESSIONS, headers={"Host": host})

    error = await response.json()
    assert (response.status, error["code"]) == (421, "MISDIRECTED_REQUEST")
    assert error["details"] == {"host": host}


@pytest.mark.parametrize("path", [SESSIONS, f"{SESSIONS}/x", f"{SESSIONS}/health", "/docs", "/openapi.json"])
async def test_all_routes_except_probes_and_metrics_require_a_known_host(client: HttpClient, path: str) -> None:
    response = await client.get(path, headers=FOREIGN)

    assert response.status == 421


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
async def test_probes_and_metrics_are_served_under_any_host(client: HttpClient, path: str) -> None:
    response = await client.get(path, headers={"Host": "10.1.2.3:3000"})

    assert response.status == 200


@with_settings(Settings(session_allowed_hosts="*"))
async def test_an_asterisk_accepts_every_host(client: HttpClient) -> None:
    assert (await client.get(SESSIONS, headers=FOREIGN)).status == 200


@with_settings(Settings(host="sessions.example", session_allow_anonymous=True))
async def test_the_host_of_the_settings_is_accepted(client: HttpClient) -> None:
    assert (await client.get(SESSIONS, headers={"Host": "sessions.example"})).status == 200


@with_settings(AUTHENTICATED)
async def test_with_authentication_every_host_and_origin_is_accepted(client: HttpClient) -> None:
    headers = {"X-API-KEY": KEY, "Origin": "https://attacker.example", **FOREIGN}

    response = await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER}, headers=headers)

    assert response.status == 201


@pytest.mark.parametrize("origin", ["https://attacker.example", "http://localhost:5173", "null", "localhost:3000"])
async def test_changes_of_other_origins_are_forbidden(client: HttpClient, origin: str) -> None:
    session_id = await open_session(client)

    response = await client.post(
        f"{SESSIONS}/{session_id}/heartbeat", headers={"Host": "localhost:3000", "Origin": origin}
    )

    error = await response.json()
    assert (response.status, error["code"], error["details"]) == (403, "FOREIGN_ORIGIN", {"origin": origin})


@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://localhost:3000", "https://a.example"])
async def test_changes_of_the_own_and_of_allowed_origins_are_accepted(client: HttpClient, origin: str) -> None:
    session_id = await open_session(client)

    response = await client.post(
        f"{SESSIONS}/{session_id}/heartbeat", headers={"Host": "Localhost:3000", "Origin": origin}
    )

    assert response.status == 200


async def test_reads_of_other_origins_are_answered_without_permission_for_the_page(client: HttpClient) -> None:
    response = await client.get(SESSIONS, headers={"Origin": "https://attacker.example"})

    assert response.status == 200
    assert "Access-Control-Allow-Origin" not in response.headers


async def test_a_host_may_contain_any_byte(client: HttpClient) -> None:
    received = await exchange(client, b"GET /docs HTTP/1.1\r\nHost: \xff\r\nConnection: close\r\n\r\n")

    assert received.startswith(b"HTTP/1.1 421 ")
