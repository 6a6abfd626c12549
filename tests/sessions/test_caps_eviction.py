"""Caps that evict the least recently active session, and replicas with different settings."""

import asyncio
import random

import pytest
from redis.asyncio import Redis

from service.maintenance.index_repair import IndexRemoval, IndexRepair
from service.maintenance.lost_sessions import LostSessions
from service.maintenance.reconciler import Reconciler
from service.maintenance.sweeper import Sweeper
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.sessions.keys import SHARDS, Keys
from service.sessions.occupancy import ABANDONED_MS
from service.sessions.store import SessionStore
from service.settings import Settings
from tests.conftest import USER, new_session_events, new_session_store
from tests.counted import counted
from tests.interruption import Interrupted
from tests.redis_contents import KEYS, keys_in
from tests.sessions.caps import (
    AGENT_CAP,
    BOTH_CAPS,
    MINUTE_MS,
    OTHER_USER,
    OWNER_INDEXES,
    USER_CAP,
    add_pending_id,
    count_live,
    create,
    create_one_per_second,
    each_cap,
    evicting,
    expire,
    outcomes_of,
    set_activity,
    states,
)


@pytest.fixture
def settings() -> Settings:
    return USER_CAP


@pytest.fixture
def without_caps(redis_client: RedisClient) -> SessionStore:
    """A store without caps."""
    return new_session_store(redis_client, Settings())


@pytest.fixture
def evicting_store(redis_client: RedisClient, settings: Settings) -> SessionStore:
    return new_session_store(redis_client, evicting(settings))


# Evicted sessions


@each_cap
async def test_the_least_recently_active_session_is_evicted(evicting_store: SessionStore, real_redis: Redis) -> None:
    first, second, third = await create_one_per_second(real_redis, evicting_store, 3)
    await evicting_store.heartbeat(first.id)
    await evicting_store.get(second.id)

    (fourth,) = await create(evicting_store, 1)

    assert await states(evicting_store, [first, second, third, fourth]) == ["live", "missing", "live", "live"]


@each_cap
async def test_no_key_of_an_evicted_session_stays(evicting_store: SessionStore, real_redis: Redis) -> None:
    first, *_ = await create_one_per_second(real_redis, evicting_store, 3)

    await create(evicting_store, 1)

    lists = [
        await real_redis.zrange(key, 0, -1) for owner_index in OWNER_INDEXES for key in KEYS.capped_index(owner_index)
    ]
    assert not [key for key in await keys_in(real_redis) if first.id in key]
    assert first.id.encode() not in {session_id for ids in lists for session_id in ids}


async def test_an_eviction_is_counted(redis_client: RedisClient) -> None:
    metrics = Metrics()

    await create(new_session_store(redis_client, evicting(USER_CAP), metrics), 5)

    assert counted(metrics.ended) == {"evicted": 2}
    assert counted(metrics.denied) == {}


@pytest.mark.parametrize(("settings", "limit"), [(USER_CAP, "user"), (AGENT_CAP, "agent")])
async def test_a_denied_creation_is_counted_by_limit(redis_client: RedisClient, settings: Settings, limit: str) -> None:
    metrics = Metrics()

    await outcomes_of(new_session_store(redis_client, settings, metrics), 5)

    assert counted(metrics.denied) == {limit: 2}


async def test_an_expired_session_makes_room_before_any_is_evicted(
    evicting_store: SessionStore, real_redis: Redis
) -> None:
    first, second, third = await create(evicting_store, 3)
    await expire(real_redis, [second])

    await create(evicting_store, 1)

    assert await states(evicting_store, [first, second, third]) == ["live", "expired", "live"]


async def test_a_session_of_another_user_is_evicted_at_the_cap_of_the_agent(
    redis_client: RedisClient, real_redis: Redis
) -> None:
    both = new_session_store(redis_client, evicting(BOTH_CAPS))
    others = await create_one_per_second(real_redis, both, 2, OTHER_USER)
    sessions = await create_one_per_second(real_redis, both, 3)

    await create(both, 1)
    await create(both, 1, user_id=OTHER_USER)

    assert await states(both, others) == ["missing", "live"]
    assert await states(both, sessions) == ["missing", "live", "live"]


async def test_the_most_recently_active_of_many_sessions_survive(redis_client: RedisClient, real_redis: Redis) -> None:
    settings = Settings(session_max_per_user=60, session_store_timeout_seconds=10)
    many = new_session_store(redis_client, evicting(settings))
    sessions = await create_one_per_second(real_redis, many, 60)
    assert await outcomes_of(new_session_store(redis_client, settings)) == {"full": 1}
    by_activity = random.Random(7).sample(sessions, 60)
    await set_activity(real_redis, by_activity, sessions[-1].created_at_ms - 100)  # later than the recorded activities

    await create(many, 3)

    assert await states(many, by_activity) == ["missing"] * 3 + ["live"] * 57


async def test_a_session_that_is_active_during_the_eviction_stays(redis_client: RedisClient, real_redis: Redis) -> None:
    first, second, third = await create_one_per_second(real_redis, new_session_store(redis_client, USER_CAP), 3)
    store = new_session_store(redis_client, evicting(USER_CAP))
    interrupted = new_session_store(
        Interrupted(redis_client, "evict", before=lambda: store.heartbeat(first.id)), evicting(USER_CAP)
    )

    await create(interrupted, 1)

    assert await states(store, [first, second, third]) == ["live", "missing", "live"]


async def test_a_session_that_is_deleted_during_the_eviction_makes_room(
    redis_client: RedisClient, real_redis: Redis
) -> None:
    store = new_session_store(redis_client, evicting(USER_CAP))
    first, second, third = await create_one_per_second(real_redis, store, 3)
    interrupted = new_session_store(
        Interrupted(redis_client, "evict", before=lambda: store.delete(first.id)), evicting(USER_CAP)
    )

    await create(interrupted, 1)

    assert await states(store, [first, second, third]) == ["missing", "live", "live"]


async def test_a_pending_creation_is_not_evicted(evicting_store: SessionStore, real_redis: Redis) -> None:
    pending_id = await add_pending_id(real_redis, ABANDONED_MS - 15_000, KEYS.user(USER))
    first, second = await create_one_per_second(real_redis, evicting_store, 2)

    await create(evicting_store, 1)

    assert await states(evicting_store, [first, second]) == ["missing", "live"]
    assert await real_redis.zscore(KEYS.user(USER), pending_id) is not None


# Replicas with different settings


@each_cap
async def test_above_the_cap_creations_are_refused_until_enough_sessions_end(
    store: SessionStore, without_caps: SessionStore
) -> None:
    sessions = await create(without_caps, 5)

    before = await outcomes_of(store)
    await asyncio.gather(*(without_caps.delete(session.id) for session in sessions[:3]))

    assert (before, await outcomes_of(store, 2)) == ({"full": 1}, {"live": 1, "full": 1})


@each_cap
async def test_above_the_cap_sessions_are_evicted_until_it_holds(
    evicting_store: SessionStore, without_caps: SessionStore, real_redis: Redis
) -> None:
    sessions = await create_one_per_second(real_redis, without_caps, 40)

    newest = await create(evicting_store, 1)

    assert await states(evicting_store, [*sessions, *newest]) == ["missing"] * 38 + ["live"] * 3


async def test_sessions_of_replicas_without_caps_count(store: SessionStore, without_caps: SessionStore) -> None:
    first, second, third = await create(store, 3)
    assert await outcomes_of(store) == {"full": 1}
    await without_caps.delete(first.id)
    await create(without_caps, 1)
    assert await outcomes_of(store) == {"full": 1}
    await without_caps.delete(second.id)
    await without_caps.delete(third.id)

    assert await outcomes_of(store, 4) == {"live": 2, "full": 2}


async def test_replicas_may_have_different_cap_policies(
    store: SessionStore, evicting_store: SessionStore, real_redis: Redis
) -> None:
    first, *others = await create_one_per_second(real_redis, store, 3)
    assert await outcomes_of(store) == {"full": 1}

    await create(evicting_store, 1)

    assert await outcomes_of(store) == {"full": 1}
    assert await states(store, [first, *others]) == ["missing", "live", "live"]


@pytest.mark.parametrize("policy", ["deny", "evict"])
async def test_the_sets_for_caps_may_be_deleted(redis_client: RedisClient, real_redis: Redis, policy: str) -> None:
    store = new_session_store(redis_client, Settings(session_max_per_user=20, session_cap_policy=policy))
    sessions = await create(store, 20)
    await outcomes_of(store)
    await real_redis.delete(*KEYS.capped_index(KEYS.user(USER))[:2])
    await expire(real_redis, sessions[-1:])

    await outcomes_of(store, 3)

    assert await count_live(real_redis) == 20


@each_cap
async def test_a_deleted_owner_index_counts_again_after_reconciliation(
    store: SessionStore, redis_client: RedisClient, real_redis: Redis, settings: Settings
) -> None:
    await create(store, 3)
    await real_redis.delete(*[key for owner_index in OWNER_INDEXES for key in KEYS.capped_index(owner_index)])

    await reconcile(redis_client, settings)

    assert await outcomes_of(store) == {"full": 1}


async def reconcile(redis_client: RedisClient, settings: Settings) -> None:
    """Reconcile every shard."""
    keys, metrics = Keys("", capped=True), Metrics()
    index_repair = IndexRepair(
        redis_client, keys, IndexRemoval(redis_client, keys), owner_index_lifetime_ms=settings.owner_index_lifetime_ms
    )
    reconciler = Reconciler(
        redis_client, keys, index_repair, LostSessions(redis_client, keys, new_session_events(metrics)), metrics
    )
    for _ in SHARDS:
        await reconciler.reconcile_next_shard()


@each_cap
async def test_a_sweep_removes_the_sets_for_caps(
    evicting_store: SessionStore, redis_client: RedisClient, real_redis: Redis, settings: Settings
) -> None:
    sessions = await create(evicting_store, 3)
    await expire(real_redis, sessions)
    metrics = Metrics()

    await Sweeper(
        redis_client, Keys("", capped=True), new_session_events(metrics), metrics, retention_ms=MINUTE_MS
    ).sweep()

    assert {key.partition(":{")[0] for key in await keys_in(real_redis)} == {"session"}
