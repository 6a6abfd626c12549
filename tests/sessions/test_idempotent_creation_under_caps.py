"""Creating a session with a key where there are caps: who comes again takes no place, and costs nobody theirs."""

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
from tests.aging import age_counted
from tests.attempt import attempt
from tests.conftest import AGENT, USER, create_session, policies_on, store_on
from tests.interruption import Interrupted
from tests.sessions.evidence import KEYS
from tests.sessions.test_idempotent_creation import KEY, WISH, Happening, listed, living

OTHER_KEY = IdempotencyKey("web", "another")

DENYING = Settings(session_max_per_user=1, session_store_timeout_seconds=10)
EVICTING = DENYING.model_copy(update={"session_max_per_user": 2, "session_cap_policy": "evict"})

each_policy = pytest.mark.parametrize("settings", [DENYING, EVICTING], ids=["deny", "evict"])


@pytest.fixture
def settings() -> Settings:
    return EVICTING


@pytest.mark.parametrize("settings", [DENYING])
async def test_who_comes_again_is_told_of_the_session_at_its_cap(store: SessionStore) -> None:
    first = await store.create(WISH, KEY)

    assert (await store.create(WISH, KEY)).session.id == first.session.id


async def test_who_comes_again_ends_none(store: SessionStore, real_redis: Redis) -> None:
    first = await store.create(WISH, KEY)
    other = await create_session(store, *WISH)

    await store.create(WISH, KEY)

    assert set(await living(real_redis)) == {first.session.id, other.id}


@each_policy
async def test_thirty_at_once_over_three_replicas_take_one_place(
    redis_client: RedisClient, settings: Settings, real_redis: Redis
) -> None:
    stores = [store_on(redis_client, settings) for _ in range(3)]

    answers = await asyncio.gather(*(stores[number % 3].create(WISH, KEY) for number in range(30)))

    (session_id,) = {created.session.id for created in answers}
    assert Counter(created.is_replay for created in answers) == {False: 1, True: 29}
    assert await living(real_redis) == [session_id]
    assert await listed(real_redis) == {"user": [session_id], "agent": [session_id]}


@pytest.mark.parametrize("settings", [DENYING])
async def test_another_key_is_denied(store: SessionStore) -> None:
    await store.create(WISH, KEY)

    with pytest.raises(SessionLimitReached):
        await store.create(WISH, OTHER_KEY)


async def test_of_those_at_once_in_a_replica_one_costs_another_its_place(
    store: SessionStore, real_redis: Redis
) -> None:
    idle, active = [await create_session(store, *WISH), await create_session(store, *WISH)]
    await age_counted(real_redis, idle.id, 1000, KEYS.agent(AGENT), KEYS.user(USER))

    answers = await asyncio.gather(*(store.create(WISH, KEY) for _ in range(20)))

    (session_id,) = {created.session.id for created in answers}
    assert set(await living(real_redis)) == {active.id, session_id}


async def test_who_comes_while_the_first_in_its_replica_is_not_done_waits_for_that(
    redis_client: RedisClient, settings: Settings, real_redis: Redis
) -> None:
    eventful = Happening(redis_client)
    store = store_on(eventful, settings)
    other = await create_session(store, *WISH)
    coming: list[asyncio.Task[CreatedSession]] = []

    async def another_comes() -> None:
        coming.append(asyncio.create_task(store.create(WISH, KEY)))
        await asyncio.wait(coming, timeout=0.3)  # time enough to end a session for its place

    eventful.before = another_comes

    first = await store.create(WISH, KEY)

    assert (await coming[0]).session.id == first.session.id
    assert set(await living(real_redis)) == {other.id, first.session.id}


@each_policy
async def test_who_finds_no_place_since_another_came_first_is_told_of_that(
    redis_client: RedisClient, settings: Settings, real_redis: Redis
) -> None:
    other = store_on(redis_client, settings)
    full = settings.model_copy(update={"session_max_per_user": 1})
    late = store_on(Interrupted(redis_client, "add_within_caps", before=lambda: other.create(WISH, KEY)), full)

    created = await late.create(WISH, KEY)

    assert created.is_replay is True
    assert await living(real_redis) == [created.session.id]
    assert await listed(real_redis) == {"user": [created.session.id], "agent": [created.session.id]}


async def test_for_an_agent_that_must_be_known_and_is_not_nobody_has_to_leave(
    redis_client: RedisClient, settings: Settings
) -> None:
    session = await create_session(store_on(redis_client, settings), *WISH)
    strict = settings.model_copy(update={"session_require_known_agent": True, "session_max_per_user": 1})

    with pytest.raises(AgentNotFound):
        await store_on(redis_client, strict).create(WISH, KEY)

    assert await attempt(store_on(redis_client, settings).get, session.id) == "live"


@pytest.mark.parametrize("settings", [DENYING])
async def test_begun_anew_it_has_its_place(
    store: SessionStore, redis_client: RedisClient, settings: Settings, real_redis: Redis
) -> None:
    await store.delete((await create_session(store, *WISH)).id)  # it remembers that there is no policy
    await policies_on(redis_client, settings).put(AGENT, {"max_duration_minutes": 120})

    created = await store.create(WISH, KEY)

    assert created.session.timeout.max_duration_minutes == 120
    assert await living(real_redis) == [created.session.id]
