"""With a user's token, a cap of an agent evicts only sessions of this user."""

import asyncio
from collections import Counter

import pytest
from redis.asyncio import Redis

from service.errors import SessionLimitReached
from service.redis_client.client import RedisClient
from service.sessions.store import SessionStore
from service.settings import Settings
from tests.auth.conftest import authenticated_settings, key_headers, token_headers
from tests.conftest import AGENT, USER, HttpClient, create_session, new_session_store
from tests.sessions.caps import OTHER_AGENT, OTHER_USER, create_one_per_second, expire, states
from tests.test_walkthrough import SESSIONS

CAP = 3


@pytest.fixture
def settings() -> Settings:
    caps = {"session_max_per_agent": CAP, "session_cap_policy": "evict", "session_store_timeout_seconds": 10}
    return authenticated_settings().model_copy(update=caps)


async def request_creation(
    client: HttpClient, user_id: str, headers: dict[str, str], agent_id: str = AGENT
) -> tuple[int, str]:
    """Return the status, and the id of the session or the code of the error."""
    response = await client.post(SESSIONS, json={"agentId": agent_id, "userId": user_id}, headers=headers)
    body = await response.json()
    return response.status, body.get("sessionId") or body["code"]


async def create_as(client: HttpClient, user_id: str, agent_id: str = AGENT) -> tuple[int, str]:
    return await request_creation(client, user_id, token_headers(user_id), agent_id)


async def status_of(client: HttpClient, session_id: str) -> int:
    return (await client.get(f"{SESSIONS}/{session_id}", headers=key_headers("read"))).status


async def test_a_creation_of_a_user_evicts_no_session_of_others(client: HttpClient) -> None:
    foreign = [(await create_as(client, OTHER_USER))[1] for _ in range(2)]
    _, own = await create_as(client, USER)

    status, _ = await create_as(client, USER)

    assert status == 201
    assert [await status_of(client, session_id) for session_id in [*foreign, own]] == [200, 200, 404]


async def test_a_creation_of_a_user_without_a_session_of_the_agent_is_409(client: HttpClient) -> None:
    foreign = [(await create_as(client, OTHER_USER))[1] for _ in range(CAP)]
    _, elsewhere = await create_as(client, USER, OTHER_AGENT)

    response = await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER}, headers=token_headers(USER))

    error = await response.json()
    assert (response.status, error["code"]) == (409, "SESSION_LIMIT_REACHED")
    assert error["details"] == {"limit": "agent", "max": CAP, "agentId": AGENT}
    assert [await status_of(client, session_id) for session_id in [*foreign, elsewhere]] == [200] * (CAP + 1)


async def test_a_service_evicts_sessions_of_all_users(client: HttpClient) -> None:
    foreign = [(await create_as(client, OTHER_USER))[1] for _ in range(CAP)]

    status, _ = await request_creation(client, USER, key_headers("write"))

    assert status == 201
    assert Counter([await status_of(client, session_id) for session_id in foreign]) == {200: CAP - 1, 404: 1}


async def test_concurrent_creations_of_a_user_evict_no_session_of_others(client: HttpClient) -> None:
    foreign = [(await create_as(client, OTHER_USER))[1] for _ in range(CAP - 1)]
    await create_as(client, USER)

    responses = await asyncio.gather(*(create_as(client, USER) for _ in range(20)))

    assert {status for status, _ in responses} == {201}
    assert [await status_of(client, session_id) for session_id in foreign] == [200] * (CAP - 1)
    statuses = Counter([await status_of(client, session_id) for _, session_id in responses])
    assert statuses == {200: 1, 404: 19}


# The choice among the user's sessions


async def create_own(store: SessionStore) -> str:
    return (await create_session(store, evicts_only_own=True)).id


async def test_the_least_recently_active_session_of_the_user_is_evicted(store: SessionStore, real_redis: Redis) -> None:
    (foreign,) = await create_one_per_second(real_redis, store, 1, OTHER_USER)
    first, second = await create_one_per_second(real_redis, store, 2)
    await store.heartbeat(first.id)

    await create_own(store)

    assert await states(store, [foreign, first, second]) == ["live", "live", "missing"]


async def test_an_expired_session_of_another_user_makes_room(store: SessionStore, real_redis: Redis) -> None:
    foreign = await create_one_per_second(real_redis, store, CAP, OTHER_USER)
    await expire(real_redis, foreign[:1])

    await create_own(store)

    assert await states(store, foreign) == ["expired", "live", "live"]


async def test_no_session_is_evicted_if_that_does_not_make_room(
    redis_client: RedisClient, store: SessionStore, settings: Settings
) -> None:
    sessions = [await create_session(store, user_id=user_id) for user_id in (USER, OTHER_USER, OTHER_USER)]
    lower = new_session_store(redis_client, settings.model_copy(update={"session_max_per_agent": CAP - 1}))

    with pytest.raises(SessionLimitReached):
        await create_own(lower)

    assert await states(store, sessions) == ["live"] * CAP


@pytest.mark.parametrize("settings", [Settings(session_max_per_agent=20, session_cap_policy="evict")])
async def test_the_least_recently_active_of_many_sessions_is_evicted(store: SessionStore, real_redis: Redis) -> None:
    sessions = await create_one_per_second(real_redis, store, 20)
    for session in [*sessions[:15], *sessions[16:]]:
        await store.heartbeat(session.id)

    await create_own(store)

    assert await states(store, sessions) == [*["live"] * 15, "missing", *["live"] * 4]
