"""Responses to a user's token neither reveal the sessions of other users nor end them."""

from base64 import urlsafe_b64decode
from typing import Any

import pytest
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.errors import StoreUnavailable
from service.maintenance.sweeper import Sweeper
from service.observability.metrics import Metrics
from service.sessions import listing as listing_module
from service.sessions import revocation as revocation_module
from service.sessions.cursors import Cursors
from service.sessions.listing import Position, SessionFilter
from service.settings import Settings
from service.shared_secret import SharedSecret
from tests.aging import age
from tests.auth.conftest import authenticated_settings, key_headers, token_headers
from tests.bad_input.helpers import invalid_fields
from tests.conftest import AGENT, USER, HttpClient, ServiceServer, new_session_events, redis_client_for
from tests.redis_contents import KEYS
from tests.sessions.revocation import out_of_memory
from tests.test_walkthrough import MINUTE_MS, SESSIONS

OTHER_USER = "11111111-2222-4333-8444-555555555555"
OTHER_AGENT = "00000000-0000-4000-8000-00000000000a"


@pytest.fixture
def settings() -> Settings:
    return authenticated_settings()


async def create(client: HttpClient, user_id: str, agent_id: str = AGENT) -> str:
    """Create a session of the user and return its id."""
    body = {"agentId": agent_id, "userId": user_id}
    response = await client.post(SESSIONS, json=body, headers=token_headers(user_id))
    assert response.status == 201
    return str((await response.json())["sessionId"])


async def list_as(client: HttpClient, user_id: str, **query: str) -> Any:
    return await (await client.get(SESSIONS, params=query, headers=token_headers(user_id))).json()


# Totals


def stats_of(number: int) -> dict[str, int]:
    return {"totalSessions": number, "activeSessions": number, "expiredSessions": 0}


@pytest.mark.parametrize("query", [{"agentId": AGENT}, {"nearExpiration": "false"}, {"nearExpiration": "true"}])
async def test_totals_of_a_user_do_not_count_sessions_of_others(
    client: HttpClient, redis: Redis, query: dict[str, str]
) -> None:
    for _ in range(3):
        await create(client, USER, OTHER_AGENT)
        await create(client, OTHER_USER)
    await age(redis, await create(client, OTHER_USER), 26 * MINUTE_MS)
    own = await list_as(client, USER, **query)

    expected = 3 if query == {"nearExpiration": "false"} else 0
    assert (len(own["sessions"]), own["total"], own["stats"]) == (expected, expected, stats_of(expected))


async def test_totals_of_a_user_count_the_sessions_that_match(client: HttpClient, redis: Redis) -> None:
    await create(client, USER)
    await create(client, USER, OTHER_AGENT)
    await age(redis, await create(client, USER), 26 * MINUTE_MS)
    await age(redis, await create(client, USER), 31 * MINUTE_MS)

    totals = [
        (await list_as(client, USER, limit="1", **query))["total"]
        for query in ({}, {"agentId": AGENT}, {"nearExpiration": "true"}, {"agentId": AGENT, "nearExpiration": "false"})
    ]

    assert totals == [3, 2, 1, 1]


async def test_the_total_of_a_user_counts_entries_behind_the_examined_ones(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await create(client, USER, OTHER_AGENT)
    monkeypatch.setattr(listing_module, "MAX_EXAMINED", 2)

    page = await list_as(client, USER, agentId=AGENT)

    assert (page["sessions"], page["total"]) == ([], 1)


# Cursors


async def test_a_cursor_of_a_users_revocation_contains_no_id_of_others(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocation_module, "MAX_REVOKED", 1)
    own = [await create(client, USER) for _ in range(2)]
    for _ in range(3):
        await create(client, USER, OTHER_AGENT)
    foreign = await create(client, OTHER_USER)  # the index of the agent is the shorter one, and ends with this id

    response = await client.delete(SESSIONS, params={"userId": USER, "agentId": AGENT}, headers=token_headers(USER))
    cursor = (await response.json())["nextCursor"]

    assert foreign not in decoded(cursor)
    assert own[0] in decoded(cursor)


def decoded(cursor: str) -> str:
    payload = cursor[32:]
    return urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).decode()


async def test_a_user_ends_their_sessions_with_an_agent_by_cursor(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocation_module, "MAX_REVOKED", 2)
    for _ in range(3):
        await create(client, USER)
    kept = [await create(client, USER, OTHER_AGENT), await create(client, OTHER_USER)]
    query = {"userId": USER, "agentId": AGENT}

    first = await (await client.delete(SESSIONS, params=query, headers=token_headers(USER))).json()
    query["cursor"] = first["nextCursor"]
    second = await (await client.delete(SESSIONS, params=query, headers=token_headers(USER))).json()

    assert (first["revoked"], second) == (2, {"revoked": 1, "more": False, "nextCursor": None})
    statuses = [(await client.get(f"{SESSIONS}/{id_}", headers=key_headers("read"))).status for id_ in kept]
    assert statuses == [200, 200]


async def first_cursor(client: HttpClient, headers: dict[str, str]) -> str:
    """Return the cursor of a list of the user's sessions that has two pages."""
    response = await client.get(SESSIONS, params={"userId": USER, "limit": "1"}, headers=headers)
    return str((await response.json())["nextCursor"])


async def test_a_cursor_of_a_user_and_one_of_a_service_are_not_interchangeable(client: HttpClient) -> None:
    for _ in range(2):
        await create(client, USER)
    headers = [token_headers(USER), key_headers("admin")]
    cursors = [await first_cursor(client, each) for each in headers]

    responses = [
        await client.get(SESSIONS, params={"userId": USER, "cursor": cursor}, headers=each)
        for each in headers
        for cursor in cursors
    ]

    assert [response.status for response in responses] == [200, 400, 400, 200]
    assert await invalid_fields(responses[1]) == {"cursor": "must be the nextCursor of a page"}


async def test_a_cursor_works_on_another_replica(
    client: HttpClient, settings: Settings, redis: Redis, aiohttp_client: AiohttpClient
) -> None:
    session_ids = [await create(client, USER) for _ in range(2)]
    replica: HttpClient = await aiohttp_client(ServiceServer(settings, redis))

    page = await list_as(replica, USER, userId=USER, cursor=await first_cursor(client, token_headers(USER)))

    assert [session["sessionId"] for session in page["sessions"]] == session_ids[1:]


def test_a_cursor_requires_the_shared_secret() -> None:
    cursors = Cursors(SharedSecret(), USER)

    with pytest.raises(StoreUnavailable):
        cursors.encode_position(SessionFilter(user_id=USER), Position(0, "1700000000000", "07"))
    with pytest.raises(StoreUnavailable):
        cursors.decode_position("0" * 40)


# Expired sessions


async def sweep(redis: Redis) -> None:
    metrics = Metrics()
    events = new_session_events(metrics)
    await Sweeper(redis_client_for(redis), KEYS, events, metrics, retention_ms=60 * MINUTE_MS).sweep()


ROUTES = [
    ("GET", ""),
    ("DELETE", ""),
    ("POST", "/heartbeat"),
    ("POST", "/renew"),
    ("PATCH", "/timeout"),
    ("PATCH", "/metadata"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_a_swept_session_is_410_for_its_user_and_404_for_others(
    client: HttpClient, redis: Redis, method: str, path: str
) -> None:
    session_id = await create(client, USER)
    await age(redis, session_id, 31 * MINUTE_MS)
    await sweep(redis)

    statuses = [
        (await client.request(method, f"{SESSIONS}/{session_id}{path}", json={}, headers=headers)).status
        for headers in (token_headers(USER), token_headers(OTHER_USER), key_headers("write"))
    ]

    assert statuses == [410, 404, 410]


async def test_a_session_that_is_swept_while_redis_is_out_of_memory_is_410_for_its_user(
    client: HttpClient, redis: Redis
) -> None:
    session_id = await create(client, USER)
    await age(redis, session_id, 31 * MINUTE_MS)
    async with out_of_memory(redis):
        await sweep(redis)

    response = await client.get(f"{SESSIONS}/{session_id}", headers=token_headers(USER))

    assert await redis.hkeys(KEYS.tombstone(session_id)) == [b"expiresAt", b"reason", b"ownerHash"]
    assert response.status == 410
