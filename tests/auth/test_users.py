"""A user with a token has access to their own sessions only."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
from redis.asyncio import Redis

from service.sessions.keys import Keys
from tests.aging import age
from tests.auth.conftest import key_headers, token_headers
from tests.conftest import AGENT, USER, HttpClient
from tests.test_walkthrough import MINUTE_MS, SESSIONS

OTHER_USER = "11111111-2222-4333-8444-555555555555"
UNKNOWN_ID = "4716d2ea-673d-47d0-b1bd-33202db7411b"
UNIQUE_HEADERS = ("Date", "X-Request-ID", "Content-Length")

ROUTES = [
    ("GET", ""),
    ("HEAD", ""),
    ("DELETE", ""),
    ("POST", "/heartbeat"),
    ("POST", "/renew"),
    ("PATCH", "/timeout"),
    ("PATCH", "/metadata"),
]
each_route = pytest.mark.parametrize(("method", "path"), ROUTES)


class Response(NamedTuple):
    """A response without the headers that differ between any two responses."""

    status: int
    headers: Mapping[str, str]
    text: str


async def request_as(
    client: HttpClient, user_id: str, method: str, path: str, body: object = None, **headers: str
) -> Response:
    headers = token_headers(user_id) | headers
    response = await client.request(method, path, json=body, headers=headers)
    comparable = {name: value for name, value in response.headers.items() if name not in UNIQUE_HEADERS}
    return Response(response.status, comparable, await response.text())


async def create(client: HttpClient, user_id: str) -> str:
    """Create a session of the user and return its id."""
    body = {"agentId": AGENT, "userId": user_id}
    response = await client.post(SESSIONS, json=body, headers=token_headers(user_id))
    assert response.status == 201
    session_id: str = (await response.json())["sessionId"]
    return session_id


async def list_as(client: HttpClient, user_id: str, query: str = "") -> Any:
    return await (await client.get(f"{SESSIONS}{query}", headers=token_headers(user_id))).json()


# Single sessions


async def test_a_user_can_do_everything_with_their_own_session(client: HttpClient) -> None:
    session_path = f"{SESSIONS}/{await create(client, USER)}"

    responses = [
        await request_as(client, USER, method, session_path + path, {}) for method, path in ROUTES if method != "DELETE"
    ]
    deleted = await request_as(client, USER, "DELETE", session_path)

    assert [response.status for response in responses] == [200] * 6
    assert deleted.status == 200


@each_route
async def test_the_session_of_another_user_is_like_an_unknown_one(client: HttpClient, method: str, path: str) -> None:
    session_id = await create(client, OTHER_USER)
    body = {"timeoutMinutes": 60}

    foreign = await request_as(client, USER, method, f"{SESSIONS}/{session_id}{path}", body)
    unknown = await request_as(client, USER, method, f"{SESSIONS}/{UNKNOWN_ID}{path}", body)

    assert foreign.status == 404
    assert foreign[:2] == unknown[:2]
    assert foreign.text.replace(session_id, UNKNOWN_ID) == unknown.text


@pytest.mark.parametrize("path", ["/timeout", "/metadata"])
async def test_an_invalid_body_is_400_for_own_foreign_and_unknown_sessions(client: HttpClient, path: str) -> None:
    ids = [await create(client, USER), await create(client, OTHER_USER), UNKNOWN_ID]

    responses = [await request_as(client, USER, "PATCH", f"{SESSIONS}/{id_}{path}", []) for id_ in ids]

    assert responses[0].status == 400
    assert responses == [responses[0]] * 3


@pytest.mark.parametrize("path", ["/timeout", "/metadata"])
async def test_a_foreign_session_is_404_with_any_revision(client: HttpClient, path: str) -> None:
    session_path = f"{SESSIONS}/{await create(client, OTHER_USER)}"

    response = await request_as(client, USER, "PATCH", session_path + path, {}, **{"If-Match": '"7"'})

    assert response.status == 404


@each_route
async def test_a_foreign_session_is_not_changed(client: HttpClient, redis: Redis, method: str, path: str) -> None:
    session_id = await create(client, OTHER_USER)
    key = Keys("").session(session_id)
    before = await redis.hgetall(key)

    await request_as(client, USER, method, f"{SESSIONS}/{session_id}{path}", {"timeoutMinutes": 60})

    assert await redis.hgetall(key) == before


@pytest.mark.parametrize("session_id", ["nonsense", UNKNOWN_ID.upper(), "%00"])
async def test_an_id_that_the_service_cannot_have_issued_is_404(client: HttpClient, session_id: str) -> None:
    assert (await request_as(client, USER, "GET", f"{SESSIONS}/{session_id}")).status == 404


async def test_an_expired_session_is_410_for_its_user_and_404_for_others(client: HttpClient, redis: Redis) -> None:
    session_id = await create(client, OTHER_USER)
    await age(redis, session_id, 31 * MINUTE_MS)

    own = await request_as(client, OTHER_USER, "GET", f"{SESSIONS}/{session_id}")
    foreign = await request_as(client, USER, "GET", f"{SESSIONS}/{session_id}")

    assert (own.status, foreign.status) == (410, 404)


async def test_a_user_cannot_create_sessions_of_others(client: HttpClient) -> None:
    body = {"agentId": AGENT, "userId": OTHER_USER}

    response = await client.post(SESSIONS, json=body, headers=token_headers(USER))
    listed = await client.get(SESSIONS, headers=key_headers("admin"))

    assert (response.status, (await response.json())["code"]) == (403, "FORBIDDEN")
    assert (await listed.json())["total"] == 0


async def test_the_user_id_is_case_insensitive(client: HttpClient) -> None:
    body = {"agentId": AGENT, "userId": USER.upper()}

    response = await client.post(SESSIONS, json=body, headers=token_headers(USER))

    assert response.status == 201


# Lists and bulk revocations


async def test_a_list_contains_only_the_sessions_of_the_user(client: HttpClient) -> None:
    own = {await create(client, USER) for _ in range(3)}
    await create(client, OTHER_USER)

    page = await list_as(client, USER)

    assert {session["sessionId"] for session in page["sessions"]} == own
    assert page["total"] == 3
    assert page["stats"] == {"totalSessions": 3, "activeSessions": 3, "expiredSessions": 0}


async def test_a_user_can_read_all_pages(client: HttpClient) -> None:
    own = {await create(client, USER) for _ in range(2)}

    first = await list_as(client, USER, "?limit=1")
    second = await list_as(client, USER, f"?limit=1&cursor={first['nextCursor']}")

    assert {session["sessionId"] for page in (first, second) for session in page["sessions"]} == own


async def test_the_cursor_of_another_user_is_invalid(client: HttpClient) -> None:
    foreign_ids = [await create(client, OTHER_USER) for _ in range(2)]
    page = await list_as(client, OTHER_USER, "?limit=1")

    response = await request_as(client, USER, "GET", f"{SESSIONS}?limit=1&cursor={page['nextCursor']}")

    assert response.status == 400
    assert [session_id for session_id in foreign_ids if session_id in response.text] == []


@pytest.mark.parametrize(
    ("method", "query"),
    [
        ("GET", f"userId={OTHER_USER}"),
        ("DELETE", f"userId={OTHER_USER}"),
        ("DELETE", f"userId={OTHER_USER}&agentId={AGENT}"),
        ("DELETE", f"agentId={AGENT}"),
    ],
)
async def test_a_user_cannot_list_or_end_sessions_of_others(client: HttpClient, method: str, query: str) -> None:
    session_id = await create(client, OTHER_USER)

    response = await request_as(client, USER, method, f"{SESSIONS}?{query}")

    assert response.status == 403
    assert (await client.get(f"{SESSIONS}/{session_id}", headers=key_headers("read"))).status == 200


async def test_a_user_can_end_all_their_sessions(client: HttpClient) -> None:
    own, foreign = await create(client, USER), await create(client, OTHER_USER)

    response = await client.delete(f"{SESSIONS}?userId={USER}", headers=token_headers(USER))

    assert (await response.json())["revoked"] == 1
    assert (await client.get(f"{SESSIONS}/{own}", headers=key_headers("read"))).status == 404
    assert (await client.get(f"{SESSIONS}/{foreign}", headers=key_headers("read"))).status == 200


async def test_ending_all_sessions_requires_the_user_id(client: HttpClient) -> None:
    assert (await request_as(client, USER, "DELETE", SESSIONS)).status == 400


# Scopes


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/metrics"),
        ("GET", f"{SESSIONS}/health"),
        ("GET", f"/api/messaging/agents/{AGENT}/timeout"),
        ("PUT", f"/api/messaging/agents/{AGENT}/timeout"),
        ("DELETE", f"/api/messaging/agents/{AGENT}/timeout"),
    ],
)
async def test_users_cannot_call_routes_that_concern_all_users(client: HttpClient, method: str, path: str) -> None:
    response = await client.request(method, path, json={}, headers=token_headers(USER, scope="read write admin"))

    assert response.status == 403


async def test_a_token_with_the_scope_read_cannot_change_a_session(client: HttpClient) -> None:
    session_path = f"{SESSIONS}/{await create(client, USER)}"
    headers = token_headers(USER, scope="read")

    responses = [await client.request(method, session_path + path, json={}, headers=headers) for method, path in ROUTES]

    assert [response.status for response in responses] == [200, 200, 403, 403, 403, 403, 403]


async def test_a_service_token_has_the_scopes_of_its_claim(client: HttpClient) -> None:
    path = f"{SESSIONS}/{await create(client, USER)}"

    responses = [
        await client.get(path, headers=token_headers("reports", scope="read")),
        await client.get(SESSIONS, headers=token_headers("reports", scope="read")),
        await client.get(SESSIONS, headers=token_headers("operator", scope="admin")),
        await client.get(path, headers=token_headers("reports")),
    ]

    assert [response.status for response in responses] == [200, 403, 200, 403]


async def test_a_user_receives_503_if_the_schema_version_is_not_supported(client: HttpClient, redis: Redis) -> None:
    await redis.set(Keys("").layout, "2")
    await client.get("/readyz")

    response = await client.get(f"{SESSIONS}/{UNKNOWN_ID}", headers=token_headers(USER))

    assert response.status == 503
