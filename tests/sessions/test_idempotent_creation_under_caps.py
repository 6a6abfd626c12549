"""Creating sessions with an Idempotency-Key under caps: a repeated request takes no place."""

import asyncio
from collections import Counter

import pytest
from redis.asyncio import Redis

from service.errors import AgentNotFound, SessionLimitReached
from service.redis_client.client import RedisClient
from service.sessions.idempotency import IdempotencyKey
from service.sessions.session import CreatedSession
from service.sessions.store import SessionStore
from service.settings import Settings
from tests.aging import age_with_indexes
from tests.attempt import attempt
from tests.conftest import AGENT, USER, create_session, new_policies, new_session_store
from tests.interruption import Interrupted
from tests.redis_contents import KEYS
from tests.sessions.idempotency import KEY, REQUEST, InterruptedCreation, indexed_ids, live_ids

OTHER_KEY = IdempotencyKey("web", "another")

DENYING = Settings(session_max_per_user=1, session_store_timeout_seconds=10)
EVICTING = DENYING.model_copy(update={"session_max_per_user": 2, "session_cap_policy": "evict"})

each_policy = pytest.mark.parametrize("settings", [DENYING, EVICTING], ids=["deny", "evict"])


@pytest.fixture
def settings() -> Settings:
    return EVICTING


@pytest.mark.parametrize("settings", [DENYING])
async def test_a_repeated_request_returns_the_session_at_its_cap(store: SessionStore) -> None:
    first = await store.create(REQUEST, KEY)

    assert (await store.create(REQUEST, KEY)).session.id == first.session.id


async def test_a_repeated_request_evicts_no_session(store: SessionStore, real_redis: Redis) -> None:
    first = await store.create(REQUEST, KEY)
    other = await create_session(store, *REQUEST)

    await store.create(REQUEST, KEY)

    assert set(await live_ids(real_redis)) == {first.session.id, other.id}


@each_policy
async def test_thirty_concurrent_requests_on_three_replicas_take_one_place(
    redis_client: RedisClient, settings: Settings, real_redis: Redis
) -> None:
    stores = [new_session_store(redis_client, settings) for _ in range(3)]

    results = await asyncio.gather(*(stores[number % 3].create(REQUEST, KEY) for number in range(30)))

    (session_id,) = {created.session.id for created in results}
    assert Counter(created.is_replay for created in results) == {False: 1, True: 29}
    assert await live_ids(real_redis) == [session_id]
    assert await indexed_ids(real_redis) == {"user": [session_id], "agent": [session_id]}


@pytest.mark.parametrize("settings", [DENYING])
async def test_another_key_is_denied_at_the_cap(store: SessionStore) -> None:
    await store.create(REQUEST, KEY)

    with pytest.raises(SessionLimitReached):
        await store.create(REQUEST, OTHER_KEY)


async def test_concurrent_requests_in_a_replica_evict_one_session(store: SessionStore, real_redis: Redis) -> None:
    idle, active = [await create_session(store, *REQUEST), await create_session(store, *REQUEST)]
    await age_with_indexes(real_redis, idle.id, 1000, KEYS.agent(AGENT), KEYS.user(USER))

    results = await asyncio.gather(*(store.create(REQUEST, KEY) for _ in range(20)))

    (session_id,) = {created.session.id for created in results}
    assert set(await live_ids(real_redis)) == {active.id, session_id}


async def test_a_request_waits_for_the_first_one_in_its_replica(
    redis_client: RedisClient, settings: Settings, real_redis: Redis
) -> None:
    interruption = InterruptedCreation(redis_client)
    store = new_session_store(interruption, settings)
    other = await create_session(store, *REQUEST)
    pending: list[asyncio.Task[CreatedSession]] = []

    async def create_another() -> None:
        pending.append(asyncio.create_task(store.create(REQUEST, KEY)))
        await asyncio.wait(pending, timeout=0.3)  # enough time to evict a session

    interruption.before = create_another

    first = await store.create(REQUEST, KEY)

    assert (await pending[0]).session.id == first.session.id
    assert set(await live_ids(real_redis)) == {other.id, first.session.id}


@each_policy
async def test_a_request_that_finds_no_place_returns_the_session_of_the_first_one(
    redis_client: RedisClient, settings: Settings, real_redis: Redis
) -> None:
    other = new_session_store(redis_client, settings)
    full = settings.model_copy(update={"session_max_per_user": 1})
    interrupted = new_session_store(
        Interrupted(redis_client, "add_within_caps", before=lambda: other.create(REQUEST, KEY)), full
    )

    created = await interrupted.create(REQUEST, KEY)

    assert created.is_replay is True
    assert await live_ids(real_redis) == [created.session.id]
    assert await indexed_ids(real_redis) == {"user": [created.session.id], "agent": [created.session.id]}


async def test_a_creation_for_an_unknown_agent_evicts_no_session(redis_client: RedisClient, settings: Settings) -> None:
    session = await create_session(new_session_store(redis_client, settings), *REQUEST)
    requires_known_agent = settings.model_copy(update={"session_require_known_agent": True, "session_max_per_user": 1})

    with pytest.raises(AgentNotFound):
        await new_session_store(redis_client, requires_known_agent).create(REQUEST, KEY)

    assert await attempt(new_session_store(redis_client, settings).get, session.id) == "live"


@pytest.mark.parametrize("settings", [DENYING])
async def test_a_creation_under_an_outdated_policy_keeps_its_place(
    store: SessionStore, redis_client: RedisClient, settings: Settings, real_redis: Redis
) -> None:
    await store.delete((await create_session(store, *REQUEST)).id)  # caches that there is no policy
    await new_policies(redis_client, settings).put(AGENT, {"max_duration_minutes": 120})

    created = await store.create(REQUEST, KEY)

    assert created.session.timeout.max_duration_minutes == 120
    assert await live_ids(real_redis) == [created.session.id]
