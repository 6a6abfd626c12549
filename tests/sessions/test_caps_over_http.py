"""Caps over HTTP, on three replicas."""

import asyncio
from collections import Counter
from itertools import cycle
from typing import Any, cast

import pytest
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.sessions.occupancy import ABANDONED_MS
from service.settings import Settings
from tests.conftest import AGENT, USER, HttpClient, ServiceServer
from tests.redis_contents import KEYS, keys_in
from tests.redis_server import RedisServer
from tests.test_walkthrough import SESSIONS, open_session

CAP = 10

Response = tuple[int, dict[str, Any]]


DENYING = Settings(session_max_per_user=CAP, session_max_per_agent=CAP + 2, session_store_timeout_seconds=30)
EVICTING = DENYING.model_copy(update={"session_cap_policy": "evict"})
IMPATIENT = DENYING.model_copy(update={"session_store_timeout_seconds": 3})


@pytest.fixture
def settings() -> Settings:
    return DENYING


@pytest.fixture
async def replicas(real_redis: Redis, settings: Settings, aiohttp_client: AiohttpClient) -> list[HttpClient]:
    return [await aiohttp_client(ServiceServer(settings, real_redis)) for _ in range(3)]


async def create(replica: HttpClient) -> Response:
    async with replica.post(SESSIONS, json={"agentId": AGENT, "userId": USER}) as response:
        return response.status, await response.json()


async def delete(replica: HttpClient, created: Response) -> int:
    async with replica.delete(f"{SESSIONS}/{created[1]['sessionId']}") as response:
        return response.status


async def create_concurrently(replicas: list[HttpClient], number: int) -> list[Response]:
    turns = zip(cycle(replicas), range(number), strict=False)
    return await asyncio.gather(*(create(replica) for replica, _ in turns))


async def create_sequentially(replicas: list[HttpClient], number: int) -> list[Response]:
    return [await create(replica) for replica, _ in zip(cycle(replicas), range(number), strict=False)]


def statuses(responses: list[Response]) -> Counter[int]:
    return Counter(status for status, _ in responses)


async def count_live(redis: Redis) -> int:
    keys = await keys_in(redis)
    return len([key for key in keys if key.startswith("session:") and not key.endswith(":tombstone")])


async def test_two_hundred_concurrent_requests_create_exactly_the_cap(
    replicas: list[HttpClient], real_redis: Redis
) -> None:
    responses = await create_concurrently(replicas, 200)

    assert statuses(responses) == {201: CAP, 409: 200 - CAP}
    assert await count_live(real_redis) == CAP


async def test_as_many_sessions_are_created_as_end(replicas: list[HttpClient], real_redis: Redis) -> None:
    live = [response for response in await create_concurrently(replicas, 60) if response[0] == 201]

    deletions = (delete(replica, created) for replica, created in zip(cycle(replicas), live[:4], strict=False))
    during, deleted = await asyncio.gather(create_concurrently(replicas, 60), asyncio.gather(*deletions))
    afterwards = await create_concurrently(replicas, 30)

    assert deleted == [200] * 4
    assert statuses(during)[201] + statuses(afterwards)[201] == 4
    assert await count_live(real_redis) == CAP


@pytest.mark.parametrize("settings", [EVICTING])
async def test_with_eviction_all_requests_succeed_and_the_cap_holds(
    replicas: list[HttpClient], real_redis: Redis
) -> None:
    responses = await create_concurrently(replicas, 200)

    assert statuses(responses) == {201: 200}
    assert await count_live(real_redis) == CAP


async def age_pending_ids(redis: Redis) -> None:
    """Age all ids in the owner indexes, so that those without a session count as abandoned."""
    for owner_index in (KEYS.user(USER), KEYS.agent(AGENT)):
        for session_id in cast(list[bytes], await redis.zrange(owner_index, 0, -1)):
            await redis.zincrby(owner_index, -ABANDONED_MS - 1000, session_id)


@pytest.mark.parametrize("settings", [IMPATIENT])
async def test_creations_that_an_outage_interrupted_do_not_keep_their_places(
    replicas: list[HttpClient], redis_server: RedisServer, real_redis: Redis
) -> None:
    before = await create_concurrently(replicas, 3)
    redis_server.pause()
    try:
        during = await create_concurrently(replicas, 30)
    finally:
        redis_server.resume()
    await real_redis.ping()
    created_during_outage = await count_live(real_redis)

    await age_pending_ids(real_redis)
    afterwards = await create_sequentially(replicas, CAP)

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
