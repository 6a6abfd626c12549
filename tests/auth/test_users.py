"""Users with tokens of their own: each lives alone in the service, and cannot tell that there are others."""

from collections.abc import Mapping
from typing import Any

import pytest
from redis.asyncio import Redis

from service.sessions.keys import Keys
from tests.aging import age
from tests.auth.conftest import bearing, having
from tests.conftest import AGENT, USER, HttpClient
from tests.test_walkthrough import SESSIONS

OTHER = "11111111-2222-4333-8444-555555555555"
UNKNOWN = "4716d2ea-673d-47d0-b1bd-33202db7411b"

CALLS = [
    ("GET", ""),
    ("HEAD", ""),
    ("DELETE", ""),
    ("POST", "/heartbeat"),
    ("POST", "/renew"),
    ("PATCH", "/timeout"),
    ("PATCH", "/metadata"),
]
every_call = pytest.mark.parametrize(("method", "tail"), CALLS)


async def opened(client: HttpClient, user_id: str, agent_id: str = AGENT) -> str:
    """The id of a session that the user has opened."""
    answer = await client.post(SESSIONS, json={"agentId": agent_id, "userId": user_id}, headers=bearing(user_id))
    assert answer.status == 201
    session_id: str = (await answer.json())["sessionId"]
    return session_id


async def told(client: HttpClient, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any, Any]:
    """Status, headers and body of an answer, but for what differs between any two."""
    answer = await client.request(method, path, json=body, headers=headers)
    of_its_own = ("Date", "X-Request-ID", "Content-Length")
    kept: Mapping[str, str] = {name: value for name, value in answer.headers.items() if name not in of_its_own}
    return answer.status, kept, await answer.text()


async def stored(redis: Redis, session_id: str) -> object:
    return await redis.hgetall(Keys("").session(session_id))


async def test_a_user_lives_through_a_session(client: HttpClient) -> None:
    path = f"{SESSIONS}/{await opened(client, USER)}"

    answers = [
        await told(client, method, path + tail, {}, **bearing(USER)) for method, tail in CALLS if method != "DELETE"
    ]
    ended = await told(client, "DELETE", path, **bearing(USER))

    assert [status for status, *_ in answers] == [200] * 6
    assert ended[0] == 200


@every_call
async def test_another_users_session_is_answered_like_an_unknown_one(
    client: HttpClient, method: str, tail: str
) -> None:
    others = await opened(client, OTHER)

    of_another = await told(client, method, f"{SESSIONS}/{others}{tail}", {"timeoutMinutes": 60}, **bearing(USER))
    of_unknown = await told(client, method, f"{SESSIONS}/{UNKNOWN}{tail}", {"timeoutMinutes": 60}, **bearing(USER))

    assert of_another[0] == 404
    assert of_another[:2] == of_unknown[:2]
    assert of_another[2].replace(others, UNKNOWN) == of_unknown[2]


@pytest.mark.parametrize("tail", ["/timeout", "/metadata"])
async def test_an_invalid_body_is_400_for_own_foreign_and_unknown_sessions(client: HttpClient, tail: str) -> None:
    ids = [await opened(client, USER), await opened(client, OTHER), UNKNOWN]

    answers = [await told(client, "PATCH", f"{SESSIONS}/{session_id}{tail}", [], **bearing(USER)) for session_id in ids]

    assert answers[0][0] == 400
    assert answers == [answers[0]] * 3


@pytest.mark.parametrize("tail", ["/timeout", "/metadata"])
async def test_another_users_session_is_404_whatever_its_revision(client: HttpClient, tail: str) -> None:
    path = f"{SESSIONS}/{await opened(client, OTHER)}{tail}"

    answer = await told(client, "PATCH", path, {}, **bearing(USER), **{"If-Match": '"7"'})

    assert answer[0] == 404


@every_call
async def test_anothers_session_is_not_changed(client: HttpClient, redis: Redis, method: str, tail: str) -> None:
    others = await opened(client, OTHER)
    before = await stored(redis, others)

    await told(client, method, f"{SESSIONS}/{others}{tail}", {"timeoutMinutes": 60}, **bearing(USER))

    assert await stored(redis, others) == before


@pytest.mark.parametrize("session_id", ["nonsense", UNKNOWN.upper(), "%00"])
async def test_what_is_no_id_is_unknown(client: HttpClient, session_id: str) -> None:
    assert (await told(client, "GET", f"{SESSIONS}/{session_id}", **bearing(USER)))[0] == 404


async def test_ones_own_session_that_has_ended_is_410_and_anothers_is_404(client: HttpClient, redis: Redis) -> None:
    ended = await opened(client, OTHER)
    await age(redis, ended, 31 * 60_000)

    own = await told(client, "GET", f"{SESSIONS}/{ended}", **bearing(OTHER))
    anothers = await told(client, "GET", f"{SESSIONS}/{ended}", **bearing(USER))

    assert [own[0], anothers[0]] == [410, 404]


async def test_a_user_opens_sessions_for_itself_alone(client: HttpClient) -> None:
    answer = await client.post(SESSIONS, json={"agentId": AGENT, "userId": OTHER}, headers=bearing(USER))
    listed = await client.get(SESSIONS, headers=having("admin"))

    assert (answer.status, (await answer.json())["code"]) == (403, "FORBIDDEN")
    assert (await listed.json())["total"] == 0


async def test_a_user_may_say_who_it_is_in_capitals(client: HttpClient) -> None:
    answer = await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER.upper()}, headers=bearing(USER))

    assert answer.status == 201


async def test_a_user_lists_its_own_and_learns_nothing_of_others(client: HttpClient) -> None:
    own = {await opened(client, USER) for _ in range(3)}
    await opened(client, OTHER)

    page = await (await client.get(SESSIONS, headers=bearing(USER))).json()

    assert {session["sessionId"] for session in page["sessions"]} == own
    assert page["total"] == 3
    assert page["stats"] == {"totalSessions": 3, "activeSessions": 3, "expiredSessions": 0}


async def test_a_user_goes_on_through_its_pages(client: HttpClient) -> None:
    own = {await opened(client, USER) for _ in range(2)}

    first = await (await client.get(f"{SESSIONS}?limit=1", headers=bearing(USER))).json()
    second = await (await client.get(f"{SESSIONS}?limit=1&cursor={first['nextCursor']}", headers=bearing(USER))).json()

    assert {session["sessionId"] for page in (first, second) for session in page["sessions"]} == own


async def test_the_cursor_of_anothers_list_is_no_way_into_it(client: HttpClient) -> None:
    others = [await opened(client, OTHER) for _ in range(2)]
    page = await (await client.get(f"{SESSIONS}?limit=1", headers=bearing(OTHER))).json()

    answer = await told(client, "GET", f"{SESSIONS}?limit=1&cursor={page['nextCursor']}", **bearing(USER))

    assert answer[0] == 400
    assert [session_id for session_id in others if session_id in answer[2]] == []


@pytest.mark.parametrize(
    ("method", "query"),
    [
        ("GET", f"userId={OTHER}"),
        ("DELETE", f"userId={OTHER}"),
        ("DELETE", f"userId={OTHER}&agentId={AGENT}"),
        ("DELETE", f"agentId={AGENT}"),
    ],
)
async def test_a_user_neither_lists_nor_ends_those_of_others(client: HttpClient, method: str, query: str) -> None:
    others = await opened(client, OTHER)

    answer = await told(client, method, f"{SESSIONS}?{query}", **bearing(USER))

    assert answer[0] == 403
    assert (await client.get(f"{SESSIONS}/{others}", headers=having("read"))).status == 200


async def test_a_user_ends_all_of_its_own(client: HttpClient) -> None:
    own, others = await opened(client, USER), await opened(client, OTHER)

    answer = await client.delete(f"{SESSIONS}?userId={USER}", headers=bearing(USER))

    assert (await answer.json())["revoked"] == 1
    assert (await client.get(f"{SESSIONS}/{own}", headers=having("read"))).status == 404
    assert (await client.get(f"{SESSIONS}/{others}", headers=having("read"))).status == 200


async def test_to_end_all_of_its_own_a_user_must_say_so(client: HttpClient) -> None:
    assert (await client.delete(SESSIONS, headers=bearing(USER))).status == 400


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
async def test_what_is_about_everyone_is_not_for_users(client: HttpClient, method: str, path: str) -> None:
    answer = await told(client, method, path, {}, **bearing(USER, scope="read write admin"))

    assert answer[0] == 403


async def test_a_token_for_reading_does_not_change(client: HttpClient) -> None:
    path = f"{SESSIONS}/{await opened(client, USER)}"

    answers = [
        (await told(client, method, path + tail, {}, **bearing(USER, scope="read")))[0] for method, tail in CALLS
    ]

    assert answers == [200, 200, 403, 403, 403, 403, 403]


async def test_a_token_of_no_user_does_what_its_scope_names(client: HttpClient) -> None:
    path = f"{SESSIONS}/{await opened(client, USER)}"

    read = await told(client, "GET", path, **bearing("reports", scope="read"))
    listed = await told(client, "GET", SESSIONS, **bearing("reports", scope="read"))
    administered = await told(client, "GET", SESSIONS, **bearing("operator", scope="admin"))
    nothing = await told(client, "GET", path, **bearing("reports"))

    assert [answer[0] for answer in (read, listed, administered, nothing)] == [200, 403, 200, 403]


async def test_a_user_gets_503_while_the_schema_version_is_unknown(client: HttpClient, redis: Redis) -> None:
    await redis.set(Keys("").layout, "2")
    await client.get("/readyz")

    answer = await client.get(f"{SESSIONS}/{UNKNOWN}", headers=bearing(USER))

    assert answer.status == 503
