"""The service works with Sentinel and on a cluster, where the keys of a call are on several nodes.

All other tests of the service use one server.
"""

import asyncio
from collections import Counter
from typing import Any

import pytest
from redis.asyncio import Redis

from service.settings import Settings
from service.settings.redis_url import Kind
from tests.aging import age
from tests.conftest import AGENT, USER, HttpClient
from tests.redis_contents import KEYS
from tests.redis_server import RedisServer
from tests.test_walkthrough import SESSIONS, get_session, open_session

MINUTE_MS = 60_000
USERS = [f"7d444840-9dc0-11d1-b245-5ffdce74fa{number:02x}" for number in range(8)]
"""Users whose indexes are on different nodes of a cluster."""


@pytest.fixture(params=["sentinel", "cluster"])
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


async def statuses_of_creations(client: HttpClient, number: int, user_id: str = USER, **headers: str) -> list[int]:
    """The statuses of so many concurrent requests."""

    async def create() -> int:
        async with client.post(SESSIONS, json={"agentId": AGENT, "userId": user_id}, headers=headers) as response:
            return response.status

    return await asyncio.gather(*(create() for _ in range(number)))


async def page(client: HttpClient, **parameters: str) -> dict[str, Any]:
    async with client.get(SESSIONS, params=parameters) as response:
        assert response.status == 200
        result: dict[str, Any] = await response.json()
        return result


def ids_on(page: dict[str, Any]) -> list[str]:
    return sorted(session["sessionId"] for session in page["sessions"])


async def size_becomes(redis: Redis, key: str, size: int) -> None:
    """Wait until a sorted set has this size. Fails with the time limit of the test."""
    while await redis.zcard(key) != size:
        continue


async def test_a_session_goes_through_its_lifecycle(client: HttpClient) -> None:
    session_id = await open_session(client, metadata={"channel": "web"})
    url = f"{SESSIONS}/{session_id}"

    responses = [
        await client.post(f"{url}/heartbeat"),
        await client.post(f"{url}/renew"),
        await client.patch(f"{url}/timeout", json={"timeoutMinutes": 60}),
        await client.patch(f"{url}/metadata", json={"channel": "app"}),
        await client.get(url),
        await client.delete(url),
        await client.get(url),
    ]

    assert [response.status for response in responses] == [200] * 6 + [404]
    session = await responses[4].json()
    assert session["timeoutConfig"]["timeoutMinutes"] == 60
    assert session["metadata"] == {"channel": "app"}


async def test_a_new_session_takes_the_policy_of_its_agent(client: HttpClient) -> None:
    await client.put(f"/api/messaging/agents/{AGENT}/timeout", json={"timeoutMinutes": 7})

    session = await get_session(client, await open_session(client))

    assert session["timeoutConfig"]["timeoutMinutes"] == 7


async def test_creations_succeed_after_redis_lost_its_scripts(
    client: HttpClient, request: pytest.FixtureRequest, kind: Kind
) -> None:
    await open_session(client)
    servers = request.getfixturevalue(f"{kind}_servers")
    nodes: list[RedisServer] = [servers.primary] if kind == "sentinel" else servers.servers
    for node in nodes:
        node.command("SCRIPT", "FLUSH")

    assert set(await statuses_of_creations(client, 20)) == {201}


async def test_concurrent_creations_with_one_idempotency_key_create_one_session(client: HttpClient) -> None:
    statuses = await statuses_of_creations(client, 10, **{"Idempotency-Key": "8e03978e-40d5-43e8-bc93-6894a57f9324"})

    assert set(statuses) <= {200, 201}
    assert (await page(client))["total"] == 1


# Sessions of all nodes


async def test_sessions_are_listed_by_user_and_by_agent(client: HttpClient) -> None:
    session_ids = [await open_session(client, userId=user_id) for user_id in USERS]

    assert ids_on(await page(client, userId=USERS[0])) == session_ids[:1]
    assert ids_on(await page(client, userId=USERS[0], agentId=AGENT)) == session_ids[:1]
    assert ids_on(await page(client, agentId=AGENT)) == sorted(session_ids)


async def test_all_sessions_are_counted_and_listed_page_by_page(client: HttpClient) -> None:
    session_ids = [await open_session(client, userId=user_id) for user_id in USERS]

    first = await page(client, limit="5")
    second = await page(client, limit="5", cursor=first["nextCursor"])

    assert (first["total"], second["nextCursor"]) == (len(USERS), None)
    assert sorted(ids_on(first) + ids_on(second)) == sorted(session_ids)


async def test_a_bulk_revocation_ends_the_sessions_of_a_user(client: HttpClient, real_redis: Redis) -> None:
    other = await open_session(client, userId=USERS[1])
    revoked = [await open_session(client, userId=USERS[0]) for _ in range(10)]

    async with client.delete(SESSIONS, params={"userId": USERS[0]}) as response:
        assert (await response.json())["revoked"] == 10

    assert {(await client.get(f"{SESSIONS}/{session_id}")).status for session_id in revoked} == {404}
    assert ids_on(await page(client, agentId=AGENT)) == [other]
    assert await real_redis.zcard(KEYS.user(USERS[0])) == 0


@pytest.mark.parametrize("settings", [Settings(session_sweep_interval_seconds=0.05)])
async def test_expired_sessions_are_gone_and_the_sweeper_removes_them_from_all_indexes(
    client: HttpClient, real_redis: Redis
) -> None:
    session_ids = [await open_session(client, userId=user_id) for user_id in USERS]

    for session_id in session_ids:
        await age(real_redis, session_id, 31 * MINUTE_MS)

    assert {(await client.get(f"{SESSIONS}/{session_id}")).status for session_id in session_ids} == {410}
    for key in (KEYS.agent(AGENT), *map(KEYS.user, USERS), *(KEYS.expiry(id_[:2]) for id_ in session_ids)):
        await size_becomes(real_redis, key, 0)


@pytest.mark.parametrize("settings", [Settings(session_reconcile_interval_seconds=0.01)])
async def test_the_reconciler_restores_owner_indexes(client: HttpClient, real_redis: Redis) -> None:
    session_id = await open_session(client)
    await real_redis.delete(KEYS.user(USER), KEYS.agent(AGENT))

    await size_becomes(real_redis, KEYS.user(USER), 1)
    await size_becomes(real_redis, KEYS.agent(AGENT), 1)

    assert ids_on(await page(client, userId=USER, agentId=AGENT)) == [session_id]


# Caps: the indexes of a user and of an agent are in different slots


@pytest.mark.parametrize("settings", [Settings(session_max_per_user=3, session_max_per_agent=100)])
async def test_concurrent_creations_do_not_exceed_the_cap(client: HttpClient, real_redis: Redis) -> None:
    statuses = await statuses_of_creations(client, 20)

    assert Counter(statuses) == {201: 3, 409: 17}
    assert await real_redis.zcard(KEYS.agent(AGENT)) == 3


@pytest.mark.parametrize("settings", [Settings(session_max_per_user=3, session_max_per_agent=1)])
async def test_a_session_over_the_cap_of_its_agent_takes_no_place_of_its_user(
    client: HttpClient, real_redis: Redis
) -> None:
    await open_session(client, userId=USERS[0])

    async with client.post(SESSIONS, json={"agentId": AGENT, "userId": USERS[1]}) as response:
        body = await response.json()

    assert (response.status, body["details"]["limit"]) == (409, "agent")
    assert await real_redis.zcard(KEYS.user(USERS[1])) == 0


@pytest.mark.parametrize(
    "settings", [Settings(session_max_per_user=2, session_max_per_agent=3, session_cap_policy="evict")]
)
async def test_a_session_over_a_cap_evicts_the_least_recently_active_one(client: HttpClient) -> None:
    of_first_user = [await open_session(client, userId=USERS[0]) for _ in range(3)]
    of_second_user = [await open_session(client, userId=USERS[1]) for _ in range(2)]

    assert ids_on(await page(client, agentId=AGENT)) == sorted([of_first_user[2], *of_second_user])


@pytest.mark.parametrize(
    "settings", [Settings(session_max_per_user=1, session_max_per_agent=1, session_cap_policy="evict")]
)
async def test_the_place_that_a_deleted_session_leaves_is_taken_without_an_eviction(client: HttpClient) -> None:
    first = await open_session(client)
    await client.delete(f"{SESSIONS}/{first}")

    second = await open_session(client)

    assert ids_on(await page(client, userId=USER)) == [second]


# Health and limits


async def test_the_service_is_ready_and_healthy(client: HttpClient) -> None:
    await open_session(client)

    async with client.get("/readyz") as ready, client.get(f"{SESSIONS}/health") as health:
        body = await health.json()

    assert (ready.status, body["status"]) == (200, "healthy")
    assert body["activeSessions"] == 1


@pytest.mark.parametrize("settings", [Settings(session_rate_per_address="5/hour")])
async def test_the_rate_limiter_counts_concurrent_requests_exactly(client: HttpClient) -> None:
    assert Counter(await statuses_of_creations(client, 20)) == {201: 5, 429: 15}
