"""Who is let in where: by keys, over every route that there is."""

from typing import Any, cast

import pytest
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.auth.authenticator import Authenticator
from service.settings import Settings
from service.settings.api_keys import SCOPES, Scope
from tests.auth.conftest import KEYS, having
from tests.conftest import AGENT, USER, HttpClient, ServiceServer
from tests.test_walkthrough import SESSIONS

UNKNOWN = "4716d2ea-673d-47d0-b1bd-33202db7411b"
NEW = {"agentId": AGENT, "userId": USER}

OPEN_TO_ALL = {"/livez", "/readyz", "/openapi.json", "/docs"}

NEEDED = {
    ("GET", "/metrics"): "admin",
    ("GET", f"{SESSIONS}/health"): "read",
    ("GET", f"{SESSIONS}/{UNKNOWN}"): "read",
    ("POST", SESSIONS): "write",
    ("POST", f"{SESSIONS}/{UNKNOWN}/heartbeat"): "write",
    ("POST", f"{SESSIONS}/{UNKNOWN}/renew"): "write",
    ("PATCH", f"{SESSIONS}/{UNKNOWN}/timeout"): "write",
    ("PATCH", f"{SESSIONS}/{UNKNOWN}/metadata"): "write",
    ("DELETE", f"{SESSIONS}/{UNKNOWN}"): "write",
    ("GET", SESSIONS): "admin",
    ("DELETE", SESSIONS): "admin",
    ("PUT", f"/api/messaging/agents/{AGENT}/timeout"): "admin",
    ("GET", f"/api/messaging/agents/{AGENT}/timeout"): "admin",
    ("DELETE", f"/api/messaging/agents/{AGENT}/timeout"): "admin",
}
"""What each call needs, said a second time: a slip beside a route must not be its own proof."""

every_call = pytest.mark.parametrize(("method", "path"), NEEDED, ids=lambda word: word)


def calls_of(client: HttpClient) -> set[tuple[str, str]]:
    """Every call that the application answers, HEAD among them, with ids where its path has places for them."""
    app = cast(Any, client.server).app
    return {
        (route.method, route.resource.canonical.replace("{session_id}", UNKNOWN).replace("{agent_id}", AGENT))
        for route in app.router.routes()
    }


async def test_without_a_key_only_probes_and_the_documentation_answer(client: HttpClient) -> None:
    calls = calls_of(client)

    answers = {call: await client.request(*call) for call in calls}

    replies_or_none = {path for (_, path), answer in answers.items() if answer.status != 401}
    assert {path for path in replies_or_none if not path.startswith("/docs/")} == OPEN_TO_ALL
    assert {answer.status for answer in answers.values()} == {200, 401}


async def test_what_each_call_needs_is_known(client: HttpClient) -> None:
    guarded_calls = {
        call
        for call in calls_of(client)
        if call[0] != "HEAD" and call[1] not in OPEN_TO_ALL and "/docs/" not in call[1]
    }

    assert guarded_calls == NEEDED.keys()


@every_call
async def test_a_key_opens_what_its_scope_opens_and_no_more(client: HttpClient, method: str, path: str) -> None:
    statuses = {scope: (await client.request(method, path, headers=having(scope))).status for scope in SCOPES}

    let_in = [scope for scope in SCOPES if statuses[scope] not in (401, 403)]
    assert let_in == list(SCOPES[SCOPES.index(cast(Scope, NEEDED[method, path])) :])


async def test_a_session_is_opened_with_a_key_and_used_with_it(client: HttpClient) -> None:
    opened = await client.post(SESSIONS, json=NEW, headers=having("write"))
    path = opened.headers["Location"]

    read = await client.get(path, headers=having("read"))
    beaten = await client.post(f"{path}/heartbeat", headers=having("write"))

    assert [opened.status, read.status, beaten.status] == [201, 200, 200]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_key_may_be_borne_as_a_token(client: HttpClient, scheme: str) -> None:
    answer = await client.get("/metrics", headers={"Authorization": f"{scheme} {KEYS['admin'].key}"})

    assert answer.status == 200


@pytest.mark.parametrize(
    ("headers", "reason", "challenge"),
    [
        ({}, "missing", "Bearer"),
        ({"Authorization": f"Basic {KEYS['admin'].key}"}, "missing", "Bearer"),
        ({"Authorization": KEYS["admin"].key}, "missing", "Bearer"),
        ({"Authorization": "Bearer "}, "unknown", 'Bearer error="invalid_token"'),
        ({"X-API-KEY": ""}, "unknown", 'Bearer error="invalid_token"'),
        ({"X-API-KEY": KEYS["admin"].key + "x"}, "unknown", 'Bearer error="invalid_token"'),
        ({"X-API-KEY": KEYS["admin"].entry}, "unknown", 'Bearer error="invalid_token"'),
        ({"X-API-KEY": "ключ"}, "unknown", 'Bearer error="invalid_token"'),
        (
            {"X-API-KEY": "nobody's", "Authorization": f"Bearer {KEYS['admin'].key}"},
            "unknown",
            'Bearer error="invalid_token"',
        ),
    ],
    ids=range(9),
)
async def test_who_is_not_known_is_401(
    client: HttpClient, headers: dict[str, str], reason: str, challenge: str
) -> None:
    answer = await client.get("/metrics", headers=headers)
    body = await answer.json()

    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, challenge)
    assert answer.headers["Cache-Control"] == "no-store"
    assert (body["success"], body["code"], body["details"]) == (False, "UNAUTHORIZED", {"reason": reason})


async def test_a_key_that_may_not_is_403_and_is_told_what_is_missing(client: HttpClient) -> None:
    answer = await client.get("/metrics", headers=having("write"))
    body = await answer.json()

    assert (answer.status, body["code"], body["details"]) == (403, "FORBIDDEN", {"scope": "admin"})
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="admin"'


async def test_refusals_are_flat_where_errors_are(
    redis: Redis, settings: Settings, aiohttp_client: AiohttpClient
) -> None:
    flat = settings.model_copy(update={"session_error_format": "flat"})
    client: HttpClient = await aiohttp_client(ServiceServer(flat, redis))

    bodies = [await (await client.get("/metrics", headers=headers)).json() for headers in ({}, having("read"))]

    assert bodies == [
        {"error": "Authentication is required", "code": "UNAUTHORIZED", "details": {"reason": "missing"}},
        {"error": "Permission denied", "code": "FORBIDDEN", "details": {"scope": "admin"}},
    ]


async def test_who_may_not_changes_nothing(client: HttpClient) -> None:
    path = (await client.post(SESSIONS, json=NEW, headers=having("write"))).headers["Location"]

    refused = [await client.delete(path), await client.delete(path, headers=having("read"))]

    assert [answer.status for answer in refused] == [401, 403]
    assert (await client.get(path, headers=having("read"))).status == 200


async def test_what_judges_tokens_ends_with_the_service(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Authenticator] = []

    async def close(authenticator: Authenticator) -> None:
        closed.append(authenticator)

    monkeypatch.setattr(Authenticator, "aclose", close)
    await client.close()

    assert len(closed) == 1


async def test_with_keys_alone_no_token_is_good(redis: Redis, aiohttp_client: AiohttpClient) -> None:
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(session_api_keys=KEYS["admin"].entry), redis))

    answers = [await client.get("/metrics", headers=headers) for headers in (having("admin"), having("read"))]

    assert [answer.status for answer in answers] == [200, 401]


async def test_without_keys_and_tokens_nobody_is_asked(redis: Redis, aiohttp_client: AiohttpClient) -> None:
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis))

    answers = [await client.get("/metrics", headers=headers) for headers in ({}, {"X-API-KEY": "nobody's"})]

    assert [answer.status for answer in answers] == [200, 200]
