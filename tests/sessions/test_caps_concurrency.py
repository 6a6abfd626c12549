"""Caps under concurrent creations on several replicas, and their cost in commands."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from itertools import cycle

import pytest
from redis.asyncio import Redis

from service.redis_client.client import RedisClient
from service.redis_client.factory import ClientFactory
from service.sessions.session import new_session_id
from service.sessions.store import SessionStore
from service.settings import Settings
from service.timestamps import ms_from_time_reply
from tests.attempt import attempt
from tests.conftest import AGENT, USER, create_session, new_session_store
from tests.redis_contents import KEYS, command_counts, reset_command_counts
from tests.sessions.caps import (
    BOTH_CAPS,
    MINUTE_MS,
    OTHER_USER,
    USER_CAP,
    count_live,
    create,
    evicting,
    outcomes_of,
)


@pytest.fixture
def settings() -> Settings:
    return USER_CAP


@pytest.fixture
def evicting_store(redis_client: RedisClient, settings: Settings) -> SessionStore:
    return new_session_store(redis_client, evicting(settings))


@pytest.fixture
async def replicas(redis_client_factory: ClientFactory, settings: Settings) -> AsyncIterator[list[SessionStore]]:
    """Three stores, each with its own Redis client."""
    redis_clients = [redis_client_factory.new_client() for _ in range(3)]
    yield [new_session_store(redis_client, settings) for redis_client in redis_clients]
    for redis_client in redis_clients:
        await redis_client.aclose()


async def create_on_all(
    replicas: Sequence[SessionStore], number: int, user_ids: Sequence[str] = (USER,)
) -> Counter[str]:
    """The outcomes of concurrent creations, on the replicas and for the users in turn."""
    turns = zip(cycle(replicas), cycle(user_ids), range(number), strict=False)
    outcomes = [attempt(create_session, store, user_id=user_id) for store, user_id, _ in turns]
    return Counter(await asyncio.gather(*outcomes))


@pytest.mark.parametrize("settings", [Settings(session_max_per_user=10), Settings(session_max_per_agent=10)])
async def test_only_as_many_of_two_hundred_concurrent_creations_as_the_cap_succeed(
    replicas: list[SessionStore], real_redis: Redis
) -> None:
    assert await create_on_all(replicas, 200) == {"live": 10, "full": 190}
    assert await count_live(real_redis) == 10


@pytest.mark.parametrize("settings", [Settings(session_max_per_user=4, session_max_per_agent=10)])
async def test_both_caps_hold_for_two_hundred_concurrent_creations_of_four_users(
    replicas: list[SessionStore], real_redis: Redis
) -> None:
    users = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(4)]

    assert await create_on_all(replicas, 200, users) == {"live": 10, "full": 190}
    assert await count_live(real_redis) == 10
    assert max([await real_redis.zcard(KEYS.user(user_id)) for user_id in users]) <= 4


@pytest.mark.parametrize(
    "settings",
    [
        evicting(Settings(session_max_per_user=10, session_store_timeout_seconds=30)),
        evicting(Settings(session_max_per_user=1, session_store_timeout_seconds=30)),
        evicting(Settings(session_max_per_user=7, session_max_per_agent=5, session_store_timeout_seconds=30)),
    ],
    ids=["10", "1", "5 of 7"],
)
async def test_with_eviction_sixty_concurrent_creations_succeed_and_the_cap_holds(
    replicas: list[SessionStore], real_redis: Redis, settings: Settings
) -> None:
    caps = [settings.session_max_per_agent, settings.session_max_per_user]

    assert await create_on_all(replicas, 60) == {"live": 60}
    assert await count_live(real_redis) == min(cap for cap in caps if cap is not None)


@pytest.mark.parametrize("settings", [Settings(session_max_per_user=10)])
async def test_the_cap_is_never_exceeded_while_sessions_end(replicas: list[SessionStore], real_redis: Redis) -> None:
    numbers = list[int]()

    async def create_and_delete(store: SessionStore) -> None:
        session = await create_session(store)
        numbers.append(len(await real_redis.keys("session:*:tombstone")))  # unlike SCAN, KEYS is atomic
        await store.delete(session.id)

    await asyncio.gather(*(attempt(create_and_delete, store) for store in replicas * 20))

    assert max(numbers) <= 10
    assert await create_on_all(replicas, 30) == {"live": 10, "full": 20}


# Cost


@pytest.mark.parametrize("settings", [BOTH_CAPS])
async def test_a_creation_below_the_cap_takes_two_scripts_and_a_read(store: SessionStore, real_redis: Redis) -> None:
    await create(store, 1)
    await reset_command_counts(real_redis)

    await create(store, 1)

    counts = await command_counts(real_redis)
    assert (counts["evalsha"], counts["hmget"]) == (2, 1)


@pytest.mark.parametrize("settings", [Settings(session_max_per_agent=500, session_store_timeout_seconds=30)])
async def test_known_live_sessions_are_not_read_again_for_the_next_refusal(
    store: SessionStore, real_redis: Redis
) -> None:
    await add_live_sessions(real_redis, 500)
    await reset_command_counts(real_redis)
    assert await outcomes_of(store) == {"full": 1}
    at_first = await command_counts(real_redis)
    await reset_command_counts(real_redis)

    assert await outcomes_of(store) == {"full": 1}

    assert at_first["hmget"] >= 500
    assert (await command_counts(real_redis))["hmget"] <= 20
    assert (await command_counts(real_redis)).keys() & {"zadd", "hset"} == set()


@pytest.mark.parametrize("settings", [Settings(session_max_per_agent=500, session_store_timeout_seconds=30)])
async def test_the_first_eviction_takes_few_scripts(
    store: SessionStore, evicting_store: SessionStore, real_redis: Redis
) -> None:
    await add_live_sessions(real_redis, 500)
    assert await outcomes_of(store) == {"full": 1}
    await reset_command_counts(real_redis)

    await create(evicting_store, 1)

    assert (await command_counts(real_redis))["evalsha"] <= 20
    assert await real_redis.zcard(KEYS.agent(AGENT)) == 500


@pytest.mark.parametrize("settings", [evicting(Settings(session_max_per_agent=500, session_store_timeout_seconds=30))])
async def test_known_live_sessions_are_not_read_again_for_the_next_eviction(
    store: SessionStore, real_redis: Redis
) -> None:
    await add_live_sessions(real_redis, 500)
    await create(store, 1)
    await reset_command_counts(real_redis)

    await create(store, 10)

    assert (await command_counts(real_redis))["hmget"] <= 300
    assert await real_redis.zcard(KEYS.agent(AGENT)) == 500


async def add_live_sessions(redis: Redis, number: int) -> None:
    """Add sessions of the agent with only the fields that caps need."""
    now_ms = ms_from_time_reply(await redis.time())
    expires_at_ms = now_ms + 30 * MINUTE_MS
    ids = [new_session_id() for _ in range(number)]
    fields = {"agentId": AGENT, "userId": OTHER_USER, "lastActivity": str(now_ms), "expiresAt": str(expires_at_ms)}
    async with redis.pipeline(transaction=False) as pipeline:
        for session_id in ids:
            pipeline.hset(KEYS.session(session_id), mapping=fields)  # type: ignore[arg-type]
            pipeline.pexpireat(KEYS.session(session_id), expires_at_ms)
        pipeline.zadd(KEYS.agent(AGENT), dict.fromkeys(ids, now_ms))
        pipeline.pexpire(KEYS.agent(AGENT), 30 * MINUTE_MS)
        await pipeline.execute()
