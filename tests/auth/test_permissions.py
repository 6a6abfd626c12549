"""Each route requires an API key or a token with its scope."""

from typing import Any, cast

import pytest
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.auth.authenticator import Authenticator
from service.settings import Settings
from service.settings.api_keys import AGENT as AGENT_SCOPE
from service.settings.api_keys import SCOPES, Scope
from tests.auth.conftest import KEYS, key_headers
from tests.conftest import AGENT, USER, HttpClient, ServiceServer
from tests.test_walkthrough import SESSIONS

MESSAGE_ID = "018d0c5e-3a40-7b1c-9d2e-4f5a6b7c8d9e"
UNKNOWN_ID = "4716d2ea-673d-47d0-b1bd-33202db7411b"
NEW_SESSION = {"agentId": AGENT, "userId": USER}

PUBLIC_PATHS = {"/livez", "/readyz", "/openapi.json", "/docs"}

REQUIRED_SCOPES: dict[tuple[str, str], Scope] = {
    ("GET", "/metrics"): "admin",
    ("GET", f"{SESSIONS}/health"): "read",
    ("GET", f"{SESSIONS}/{UNKNOWN_ID}"): "read",
    ("POST", SESSIONS): "write",
    ("POST", f"{SESSIONS}/{UNKNOWN_ID}/heartbeat"): "write",
    ("POST", f"{SESSIONS}/{UNKNOWN_ID}/renew"): "write",
    ("PATCH", f"{SESSIONS}/{UNKNOWN_ID}/timeout"): "write",
    ("PATCH", f"{SESSIONS}/{UNKNOWN_ID}/metadata"): "write",
    ("DELETE", f"{SESSIONS}/{UNKNOWN_ID}"): "write",
    ("GET", SESSIONS): "admin",
    ("DELETE", SESSIONS): "admin",
    ("PUT", f"/api/messaging/agents/{AGENT}/timeout"): "admin",
    ("GET", f"/api/messaging/agents/{AGENT}/timeout"): "admin",
    ("DELETE", f"/api/messaging/agents/{AGENT}/timeout"): "admin",
    ("POST", f"{SESSIONS}/{UNKNOWN_ID}/messages"): "write",
    ("GET", f"{SESSIONS}/{UNKNOWN_ID}/messages"): "read",
    ("GET", f"{SESSIONS}/{UNKNOWN_ID}/events"): "read",
    ("GET", f"{SESSIONS}/{UNKNOWN_ID}/transcript"): "admin",
    ("POST", f"{SESSIONS}/{UNKNOWN_ID}/messages/{MESSAGE_ID}/cancel"): "write",
}
"""Repeats the permissions of the routes, so that a mistake there fails a test."""

AGENT_ROUTES = {
    ("POST", f"{SESSIONS}/{UNKNOWN_ID}/messages/{MESSAGE_ID}/chunks"),
    ("POST", "/api/messaging/submit"),
    ("GET", f"/api/messaging/agents/{AGENT}/inbox"),
    ("POST", f"/api/messaging/agents/{AGENT}/inbox/ack"),
    ("POST", f"/api/messaging/agents/{AGENT}/inbox/extend"),
}
"""Routes that require the scope `agent`."""

SHARED_ROUTES = {
    ("GET", f"{SESSIONS}/{UNKNOWN_ID}"),
    ("POST", f"{SESSIONS}/{UNKNOWN_ID}/messages"),
    ("GET", f"{SESSIONS}/{UNKNOWN_ID}/messages"),
    ("GET", f"{SESSIONS}/{UNKNOWN_ID}/events"),
    ("GET", f"{SESSIONS}/{UNKNOWN_ID}/transcript"),
}
"""Routes that also accept the scope `agent`."""

INVALID_TOKEN = 'Bearer error="invalid_token"'

pytestmark = pytest.mark.asyncio(loop_scope="package")


def routes_of(client: HttpClient) -> set[tuple[str, str]]:
    """Return the method and path of all routes of the service, also of HEAD, with ids in the paths."""
    app = cast(Any, client.server).app
    return {
        (
            route.method,
            route.resource.canonical.replace("{session_id}", UNKNOWN_ID)
            .replace("{agent_id}", AGENT)
            .replace("{message_id}", MESSAGE_ID),
        )
        for route in app.router.routes()
    }


async def test_only_probes_and_documentation_are_public(service: HttpClient) -> None:
    responses = {route: await service.request(*route) for route in routes_of(service)}

    public = {path for (_, path), response in responses.items() if response.status != 401}
    assert {path for path in public if not path.startswith("/docs/")} == PUBLIC_PATHS
    assert {response.status for response in responses.values()} == {200, 401}


async def test_the_required_scope_of_every_route_is_tested(service: HttpClient) -> None:
    protected = {
        (method, path)
        for method, path in routes_of(service)
        if method != "HEAD" and path not in PUBLIC_PATHS and not path.startswith("/docs/")
    }

    assert protected == REQUIRED_SCOPES.keys() | AGENT_ROUTES


@pytest.mark.parametrize(("method", "path"), REQUIRED_SCOPES, ids=lambda word: word)
async def test_a_route_accepts_keys_with_its_scope_and_no_others(service: HttpClient, method: str, path: str) -> None:
    statuses = {scope: (await service.request(method, path, headers=key_headers(scope))).status for scope in SCOPES}

    accepted = [scope for scope in SCOPES if statuses[scope] not in (401, 403)]
    assert accepted == list(SCOPES[SCOPES.index(REQUIRED_SCOPES[method, path]) :])


async def test_only_agents_use_the_routes_of_agents(service: HttpClient) -> None:
    accepted = {
        route: {scope for scope in (*SCOPES, AGENT_SCOPE) if await is_accepted(service, route, scope)}
        for route in AGENT_ROUTES | SHARED_ROUTES | REQUIRED_SCOPES.keys()
    }

    assert {route for route, scopes in accepted.items() if "agent" in scopes} == AGENT_ROUTES | SHARED_ROUTES
    assert {route for route, scopes in accepted.items() if scopes == {"agent"}} == AGENT_ROUTES


async def is_accepted(service: HttpClient, route: tuple[str, str], scope: Scope) -> bool:
    return (await service.request(*route, headers=key_headers(scope))).status not in (401, 403)


async def test_a_session_is_created_and_used_with_a_key(service: HttpClient) -> None:
    created = await service.post(SESSIONS, json=NEW_SESSION, headers=key_headers("write"))
    path = created.headers["Location"]

    read = await service.get(path, headers=key_headers("read"))
    heartbeat = await service.post(f"{path}/heartbeat", headers=key_headers("write"))

    assert [created.status, read.status, heartbeat.status] == [201, 200, 200]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_key_is_accepted_as_a_bearer_token(service: HttpClient, scheme: str) -> None:
    response = await service.get("/metrics", headers={"Authorization": f"{scheme} {KEYS['admin'].key}"})

    assert response.status == 200


@pytest.mark.parametrize(
    ("headers", "reason", "challenge"),
    [
        ({}, "missing", "Bearer"),
        ({"Authorization": f"Basic {KEYS['admin'].key}"}, "missing", "Bearer"),
        ({"Authorization": KEYS["admin"].key}, "missing", "Bearer"),
        ({"Authorization": "Bearer "}, "unknown", INVALID_TOKEN),
        ({"X-API-KEY": ""}, "unknown", INVALID_TOKEN),
        ({"X-API-KEY": KEYS["admin"].key + "x"}, "unknown", INVALID_TOKEN),
        ({"X-API-KEY": KEYS["admin"].entry}, "unknown", INVALID_TOKEN),
        ({"X-API-KEY": "ключ"}, "unknown", INVALID_TOKEN),
        ({"X-API-KEY": "unknown", "Authorization": f"Bearer {KEYS['admin'].key}"}, "unknown", INVALID_TOKEN),
    ],
    ids=range(9),
)
async def test_a_missing_or_unknown_credential_is_401(
    service: HttpClient, headers: dict[str, str], reason: str, challenge: str
) -> None:
    response = await service.get("/metrics", headers=headers)
    error = await response.json()

    assert (response.status, response.headers["WWW-Authenticate"]) == (401, challenge)
    assert response.headers["Cache-Control"] == "no-store"
    assert (error["success"], error["code"], error["details"]) == (False, "UNAUTHORIZED", {"reason": reason})


async def test_a_missing_scope_is_403_with_the_scope(service: HttpClient) -> None:
    response = await service.get("/metrics", headers=key_headers("write"))
    error = await response.json()

    assert (response.status, error["code"], error["details"]) == (403, "FORBIDDEN", {"scope": "admin"})
    assert response.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="admin"'


async def test_a_rejected_request_changes_nothing(service: HttpClient) -> None:
    path = (await service.post(SESSIONS, json=NEW_SESSION, headers=key_headers("write"))).headers["Location"]

    rejected = [await service.delete(path), await service.delete(path, headers=key_headers("read"))]

    assert [response.status for response in rejected] == [401, 403]
    assert (await service.get(path, headers=key_headers("read"))).status == 200


# Other settings


@pytest.mark.asyncio(loop_scope="function")
async def test_errors_follow_the_error_format(redis: Redis, settings: Settings, aiohttp_client: AiohttpClient) -> None:
    flat = settings.model_copy(update={"session_error_format": "flat"})
    client: HttpClient = await aiohttp_client(ServiceServer(flat, redis))

    errors = [await (await client.get("/metrics", headers=headers)).json() for headers in ({}, key_headers("read"))]

    assert errors == [
        {"error": "Authentication is required", "code": "UNAUTHORIZED", "details": {"reason": "missing"}},
        {"error": "Permission denied", "code": "FORBIDDEN", "details": {"scope": "admin"}},
    ]


@pytest.mark.asyncio(loop_scope="function")
async def test_the_authenticator_is_closed_with_the_service(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Authenticator] = []

    async def close(authenticator: Authenticator) -> None:
        closed.append(authenticator)

    monkeypatch.setattr(Authenticator, "aclose", close)
    await client.close()

    assert len(closed) == 1


@pytest.mark.asyncio(loop_scope="function")
async def test_tokens_are_rejected_if_only_keys_are_configured(redis: Redis, aiohttp_client: AiohttpClient) -> None:
    settings = Settings(session_api_keys=KEYS["admin"].entry)
    client: HttpClient = await aiohttp_client(ServiceServer(settings, redis))

    responses = [await client.get("/metrics", headers=key_headers(scope)) for scope in ("admin", "read")]

    assert [response.status for response in responses] == [200, 401]


@pytest.mark.asyncio(loop_scope="function")
async def test_all_requests_are_accepted_without_keys_and_tokens(redis: Redis, aiohttp_client: AiohttpClient) -> None:
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis))

    responses = [await client.get("/metrics", headers=headers) for headers in ({}, {"X-API-KEY": "unknown"})]

    assert [response.status for response in responses] == [200, 200]
