"""Caps over HTTP: three replicas, two hundred creations at once, and exactly as many sessions as may live."""

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

Answer = tuple[int, dict[str, Any]]


@pytest.fixture
def policy() -> str:
    return "deny"


@pytest.fixture
def patience() -> str:
    """For how many seconds replicas wait for Redis, and creations for their turns."""
    return "30"


@pytest.fixture
def replicas(
    redis_server: RedisServer, real_redis: Redis, start_replica: StartReplica, policy: str, patience: str
) -> list[Replica]:
    settings = {
        "SESSION_MAX_PER_USER": str(CAP),
        "SESSION_MAX_PER_AGENT": str(CAP + 2),
        "SESSION_CAP_POLICY": policy,
        "SESSION_STORE_TIMEOUT_SECONDS": patience,
        "SESSION_LOG_LEVEL": "warning",
    }
    return [start_replica(REDIS_URL=redis_server.url, **settings) for _ in range(3)]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        yield http


async def created(http: aiohttp.ClientSession, replica: Replica, user_id: str = USER) -> Answer:
    async with http.post(replica.sessions, json={"agentId": AGENT, "userId": user_id}) as response:
        return response.status, await response.json()


async def deleted(http: aiohttp.ClientSession, replica: Replica, answer: Answer) -> int:
    async with http.delete(f"{replica.sessions}/{answer[1]['sessionId']}") as response:
        return response.status


async def at_once(http: aiohttp.ClientSession, replicas: list[Replica], number: int) -> list[Answer]:
    turns = zip(cycle(replicas), range(number), strict=False)
    return await asyncio.gather(*(created(http, replica) for replica, _ in turns))


async def one_by_one(http: aiohttp.ClientSession, replicas: list[Replica], number: int) -> list[Answer]:
    return [await created(http, replica) for replica, _ in zip(cycle(replicas), range(number), strict=False)]


def statuses(answers: list[Answer]) -> Counter[int]:
    return Counter(status for status, _ in answers)


async def living_in(redis: Redis) -> int:
    keys = await keys_in(redis)
    return len([key for key in keys if key.startswith("session:") and not key.endswith(":tombstone")])


async def test_of_two_hundred_on_three_replicas_the_cap_is_created(
    replicas: list[Replica], http: aiohttp.ClientSession, real_redis: Redis
) -> None:
    answers = await at_once(http, replicas, 200)

    assert statuses(answers) == {201: CAP, 409: 200 - CAP}
    assert await living_in(real_redis) == CAP


async def test_as_many_as_end_are_created_anew(
    replicas: list[Replica], http: aiohttp.ClientSession, real_redis: Redis
) -> None:
    living = [answer for answer in await at_once(http, replicas, 60) if answer[0] == 201]

    ending = (deleted(http, replica, answer) for replica, answer in zip(cycle(replicas), living[:4], strict=False))
    during, ended = await asyncio.gather(at_once(http, replicas, 60), asyncio.gather(*ending))
    afterwards = await at_once(http, replicas, 30)

    assert ended == [200] * 4
    assert statuses(during)[201] + statuses(afterwards)[201] == 4
    assert await living_in(real_redis) == CAP


@pytest.mark.parametrize("policy", ["evict"])
async def test_where_they_are_evicted_all_are_created_and_the_cap_is_left(
    replicas: list[Replica], http: aiohttp.ClientSession, real_redis: Redis
) -> None:
    answers = await at_once(http, replicas, 200)

    assert statuses(answers) == {201: 200}
    assert await living_in(real_redis) == CAP


async def half_a_minute_passes(redis: Redis) -> None:
    """For what was listed, so that nobody waits for it any more."""
    for owner_index in (KEYS.user(USER), KEYS.agent(AGENT)):
        for session_id in cast(list[bytes], await redis.zrange(owner_index, 0, -1)):
            await redis.zincrby(owner_index, -ABANDONED_MS - 1000, session_id)


@pytest.mark.parametrize("patience", ["0.5"])
async def test_creations_that_an_outage_cut_short_hold_no_place_for_long(
    replicas: list[Replica], http: aiohttp.ClientSession, redis_server: RedisServer, real_redis: Redis
) -> None:
    before = await at_once(http, replicas, 3)
    redis_server.pause()
    try:
        during = await at_once(http, replicas, 30)
    finally:
        redis_server.resume()
    await real_redis.ping()
    came_about = await living_in(real_redis)

    await half_a_minute_passes(real_redis)
    afterwards = await one_by_one(http, replicas, CAP)

    assert (statuses(before), statuses(during)) == ({201: 3}, {503: 30})
    assert statuses(afterwards) == {201: CAP - came_about, 409: came_about}
    assert await living_in(real_redis) == CAP


@pytest.mark.parametrize("settings", [Settings(session_max_per_user=1)])
async def test_a_refusal_is_a_conflict_that_says_why(client: HttpClient) -> None:
    await open_session(client)

    response = await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER})

    assert response.status == 409
    assert (await response.json())["details"] == {"limit": "user", "max": 1, "userId": USER}
    assert (await response.json())["code"] == "SESSION_LIMIT_REACHED"


@pytest.mark.parametrize("settings", [Settings(session_max_per_user=1, session_cap_policy="evict")])
async def test_one_that_was_evicted_is_not_found(client: HttpClient) -> None:
    evicted = await open_session(client)

    await open_session(client)

    assert (await client.get(f"{SESSIONS}/{evicted}")).status == 404
