"""Caps over HTTP, on three replicas."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from itertools import cycle
from typing import Any, cast

import aiohttp
import pytest
from redis.asyncio import Redis

from service.sessions.occupancy import ABANDONED_MS
from service.settings import Settings
from tests.conftest import AGENT, USER, HttpClient, StartReplica
from tests.redis_server import RedisServer
from tests.replica import Replica
from tests.sessions.evidence import KEYS, keys_in
from tests.test_walkthrough import SESSIONS, open_session

CAP = 10

Response = tuple[int, dict[str, Any]]


@pytest.fixture
def policy() -> str:
    return "deny"


@pytest.fixture
def timeout_seconds() -> str:
    """SESSION_STORE_TIMEOUT_SECONDS of the replicas."""
    return "30"


@pytest.fixture
def replicas(
    redis_server: RedisServer, real_redis: Redis, start_replica: StartReplica, policy: str, timeout_seconds: str
) -> list[Replica]:
    settings = {
        "SESSION_MAX_PER_USER": str(CAP),
        "SESSION_MAX_PER_AGENT": str(CAP + 2),
        "SESSION_CAP_POLICY": policy,
        "SESSION_STORE_TIMEOUT_SECONDS": timeout_seconds,
        "SESSION_LOG_LEVEL": "warning",
    }
    return [start_replica(REDIS_URL=redis_server.url, **settings) for _ in range(3)]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        yield http


async def create(http: aiohttp.ClientSession, replica: Replica, user_id: str = USER) -> Response:
    async with http.post(replica.sessions, json={"agentId": AGENT, "userId": user_id}) as response:
        return response.status, await response.json()


async def delete(http: aiohttp.ClientSession, replica: Replica, created: Response) -> int:
    async with http.delete(f"{replica.sessions}/{created[1]['sessionId']}") as response:
        return response.status


async def create_concurrently(http: aiohttp.ClientSession, replicas: list[Replica], number: int) -> list[Response]:
    turns = zip(cycle(replicas), range(number), strict=False)
    return await asyncio.gather(*(create(http, replica) for replica, _ in turns))


async def create_sequentially(http: aiohttp.ClientSession, replicas: list[Replica], number: int) -> list[Response]:
    return [await create(http, replica) for replica, _ in zip(cycle(replicas), range(number), strict=False)]


def statuses(responses: list[Response]) -> Counter[int]:
    return Counter(status for status, _ in responses)


async def count_live(redis: Redis) -> int:
    keys = await keys_in(redis)
    return len([key for key in keys if key.startswith("session:") and not key.endswith(":tombstone")])


async def test_two_hundred_concurrent_requests_create_exactly_the_cap(
    replicas: list[Replica], http: aiohttp.ClientSession, real_redis: Redis
) -> None:
    responses = await create_concurrently(http, replicas, 200)

    assert statuses(responses) == {201: CAP, 409: 200 - CAP}
    assert await count_live(real_redis) == CAP


async def test_as_many_sessions_are_created_as_end(
    replicas: list[Replica], http: aiohttp.ClientSession, real_redis: Redis
) -> None:
    live = [response for response in await create_concurrently(http, replicas, 60) if response[0] == 201]

    deletions = (delete(http, replica, created) for replica, created in zip(cycle(replicas), live[:4], strict=False))
    during, deleted = await asyncio.gather(create_concurrently(http, replicas, 60), asyncio.gather(*deletions))
    afterwards = await create_concurrently(http, replicas, 30)

    assert deleted == [200] * 4
    assert statuses(during)[201] + statuses(afterwards)[201] == 4
    assert await count_live(real_redis) == CAP


@pytest.mark.parametrize("policy", ["evict"])
async def test_with_eviction_all_requests_succeed_and_the_cap_holds(
    replicas: list[Replica], http: aiohttp.ClientSession, real_redis: Redis
) -> None:
    responses = await create_concurrently(http, replicas, 200)

    assert statuses(responses) == {201: 200}
    assert await count_live(real_redis) == CAP


async def age_pending_ids(redis: Redis) -> None:
    """Age all ids in the owner indexes, so that those without a session count as abandoned."""
    for owner_index in (KEYS.user(USER), KEYS.agent(AGENT)):
        for session_id in cast(list[bytes], await redis.zrange(owner_index, 0, -1)):
            await redis.zincrby(owner_index, -ABANDONED_MS - 1000, session_id)


@pytest.mark.parametrize("timeout_seconds", ["0.5"])
async def test_creations_that_an_outage_interrupted_do_not_keep_their_places(
    replicas: list[Replica], http: aiohttp.ClientSession, redis_server: RedisServer, real_redis: Redis
) -> None:
    before = await create_concurrently(http, replicas, 3)
    redis_server.pause()
    try:
        during = await create_concurrently(http, replicas, 30)
    finally:
        redis_server.resume()
    await real_redis.ping()
    created_during_outage = await count_live(real_redis)

    await age_pending_ids(real_redis)
    afterwards = await create_sequentially(http, replicas, CAP)

    assert (statuses(before), statuses(during)) == ({201: 3}, {503: 30})
    assert statuses(afterwards) == {201: CAP - created_during_outage, 409: created_during_outage}
    assert await count_live(real_redis) == CAP


@pytest.mark.parametrize("settings", [Settings(session_max_per_user=1)])
async def test_a_denied_creation_is_409_with_the_limit(client: HttpClient) -> None:
    await open_session(client)

    response = await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER})

    assert response.status == 409
    assert (await response.json())["details"] == {"limit": "user", "max": 1, "userId": USER}
    assert (await response.json())["code"] == "SESSION_LIMIT_REACHED"


@pytest.mark.parametrize("settings", [Settings(session_max_per_user=1, session_cap_policy="evict")])
async def test_an_evicted_session_is_404(client: HttpClient) -> None:
    evicted = await open_session(client)

    await open_session(client)

    assert (await client.get(f"{SESSIONS}/{evicted}")).status == 404
