"""Caps that deny creations: which sessions count, also while creations are pending or fail."""

import asyncio

import pytest
from redis.asyncio import Redis

from service.errors import CreationContention, SessionLimitReached, StoreUnavailable
from service.maintenance.index_repair import IndexRemoval
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient, Reply
from service.redis_client.errors import CommandRejected, ScriptError
from service.redis_client.scripts import Command
from service.sessions.events import SessionEvents
from service.sessions.keys import REVOCATION_MARKER_MS, Keys
from service.sessions.occupancy import ABANDONED_MS
from service.sessions.revocation import BulkRevocation, OwnerFilter, Revoked
from service.sessions.scripts import CREATE
from service.sessions.store import SessionStore
from service.settings import Settings
from tests.aging import age_with_indexes
from tests.attempt import attempt
from tests.conftest import AGENT, USER, create_session, new_policies, new_session_events, new_session_store
from tests.interruption import Interrupted
from tests.redis_contents import KEYS, keys_in
from tests.sessions.caps import (
    BOTH_CAPS,
    MINUTE_MS,
    OTHER_AGENT,
    OTHER_USER,
    OWNER_INDEXES,
    USER_CAP,
    add_pending_id,
    count_live,
    create,
    each_cap,
    evicting,
    expire,
    outcomes_of,
    states,
)
from tests.sessions.revocation import out_of_memory


@pytest.fixture
def settings() -> Settings:
    return USER_CAP


# Denied creations


@each_cap
async def test_as_many_sessions_as_the_cap_may_be_live(store: SessionStore) -> None:
    assert await states(store, await create(store, 3)) == ["live"] * 3


@each_cap
async def test_another_session_is_refused(store: SessionStore, real_redis: Redis) -> None:
    await create(store, 3)

    assert await outcomes_of(store) == {"full": 1}
    assert await count_live(real_redis) == 3


async def test_a_refusal_names_the_owner_and_the_cap(redis_client: RedisClient) -> None:
    both = new_session_store(redis_client, BOTH_CAPS)
    await create(both, 3)
    await create(both, 2, user_id=OTHER_USER)

    with pytest.raises(SessionLimitReached) as user_error:
        await create(both, 1, agent_id=OTHER_AGENT)
    with pytest.raises(SessionLimitReached) as agent_error:
        await create(both, 1, user_id=OTHER_USER)

    assert user_error.value.facts == {"limit": "user", "max": 3, "userId": USER}
    assert agent_error.value.facts == {"limit": "agent", "max": 5, "agentId": AGENT}


@pytest.mark.parametrize("settings", [BOTH_CAPS])
async def test_a_refused_creation_leaves_no_keys(store: SessionStore, real_redis: Redis) -> None:
    await create(store, 3)
    await create(store, 2, user_id=OTHER_USER)
    before = await keys_in(real_redis)

    assert await outcomes_of(store, user_id=OTHER_USER) == {"full": 1}

    assert sorted(await keys_in(real_redis)) == sorted(before)
    assert (
        await real_redis.zcard(KEYS.user(OTHER_USER))
        == await real_redis.zcard(KEYS.capped_index(KEYS.user(OTHER_USER)).ends)
        == 2
    )


async def test_sessions_of_other_users_do_not_count(store: SessionStore) -> None:
    await create(store, 3)

    assert await outcomes_of(store, user_id=OTHER_USER) == {"live": 1}


async def test_an_agent_without_a_cap_may_have_any_number(store: SessionStore) -> None:
    await create(store, 3)
    await create(store, 3, user_id=OTHER_USER)

    assert await outcomes_of(store, user_id=OTHER_USER) == {"full": 1}
    assert await outcomes_of(store, user_id="00000000-0000-4000-8000-00000000000c") == {"live": 1}


# Sessions that count


@each_cap
async def test_a_deleted_session_makes_room(store: SessionStore) -> None:
    session, *_ = await create(store, 3)
    await store.delete(session.id)

    assert await outcomes_of(store, 2) == {"live": 1, "full": 1}


@each_cap
async def test_an_expired_session_makes_room_before_it_is_swept(store: SessionStore, real_redis: Redis) -> None:
    session, *_ = await create(store, 3)
    assert await outcomes_of(store) == {"full": 1}
    await age_with_indexes(real_redis, session.id, session.time_remaining_ms, *OWNER_INDEXES)

    assert await outcomes_of(store, 2) == {"live": 1, "full": 1}
    assert await attempt(store.get, session.id) == "expired"


@pytest.mark.parametrize("settings", [Settings(session_max_per_user=100)])
async def test_all_expired_sessions_of_many_make_room(store: SessionStore, real_redis: Redis) -> None:
    sessions = await asyncio.gather(*(create_session(store) for _ in range(100)))
    assert await outcomes_of(store) == {"full": 1}
    await expire(real_redis, sessions[40:60])

    assert await outcomes_of(store, 30) == {"live": 20, "full": 10}


@each_cap
async def test_a_lost_session_makes_room(store: SessionStore, real_redis: Redis) -> None:
    session, *_ = await create(store, 3)
    assert await outcomes_of(store) == {"full": 1}
    await real_redis.delete(KEYS.session(session.id))

    assert await outcomes_of(store, 2) == {"live": 1, "full": 1}


@pytest.mark.parametrize("settings", [Settings(session_max_per_user=100)])
async def test_a_session_with_a_closer_expiry_makes_room_then(store: SessionStore, real_redis: Redis) -> None:
    session, *_ = await asyncio.gather(*(create_session(store) for _ in range(100)))
    assert await outcomes_of(store) == {"full": 1}
    await store.update_timeout(session.id, {"timeout_minutes": 5})
    await age_with_indexes(real_redis, session.id, 5 * MINUTE_MS, *OWNER_INDEXES)

    assert await outcomes_of(store, 2) == {"live": 1, "full": 1}


async def test_a_renewed_session_keeps_its_place(store: SessionStore, real_redis: Redis) -> None:
    session, *_ = await create(store, 3)
    assert await outcomes_of(store) == {"full": 1}
    await age_with_indexes(real_redis, session.id, 29 * MINUTE_MS, *OWNER_INDEXES)
    await store.heartbeat(session.id)
    await real_redis.zincrby(KEYS.capped_index(KEYS.user(USER)).ends, -2 * MINUTE_MS, session.id)

    assert await outcomes_of(store) == {"full": 1}


@each_cap
async def test_revoked_sessions_make_room(store: SessionStore, redis_client: RedisClient) -> None:
    await create(store, 3)
    revocation = BulkRevocation(redis_client, Keys("", capped=True), new_session_events(Metrics()))

    assert await revocation.revoke(OwnerFilter(None, USER)) == Revoked(3, None)

    assert await outcomes_of(store, 4) == {"live": 3, "full": 1}


async def test_a_session_of_another_owner_in_the_index_takes_no_place(store: SessionStore, real_redis: Redis) -> None:
    (other,) = await create(store, 1, OTHER_AGENT, OTHER_USER)
    await create(store, 2)
    await real_redis.zadd(KEYS.user(USER), {other.id: other.created_at_ms})

    assert await outcomes_of(store, 2) == {"live": 1, "full": 1}
    assert await attempt(store.get, other.id) == "live"


# Pending and failed creations


async def test_a_pending_creation_is_awaited_and_counts(redis_client: RedisClient, real_redis: Redis) -> None:
    impatient = Settings(session_max_per_user=1, session_store_timeout_seconds=5)
    await add_pending_id(real_redis, 4500, KEYS.user(USER))

    assert await outcomes_of(new_session_store(redis_client, impatient)) == {"full": 1}


async def test_a_creation_fails_with_contention_if_only_pending_ones_could_be_evicted(
    redis_client: RedisClient, real_redis: Redis
) -> None:
    impatient = Settings(session_max_per_user=1, session_store_timeout_seconds=1)
    await add_pending_id(real_redis, 0, KEYS.user(USER))

    with pytest.raises(CreationContention) as caught:
        await create(new_session_store(redis_client, evicting(impatient)), 1)

    assert caught.value.facts == {"limit": "user", "userId": USER}
    assert await real_redis.zcard(KEYS.user(USER)) == 1


@pytest.mark.parametrize("policy", ["deny", "evict"])
async def test_a_waiting_creation_takes_the_place_of_one_that_gave_up(
    redis_client: RedisClient, real_redis: Redis, policy: str
) -> None:
    pending_id = await add_pending_id(real_redis, 0, KEYS.user(USER))
    settings = Settings(session_max_per_user=1, session_cap_policy=policy)
    interrupted = Interrupted(redis_client, "ZADD", after=lambda: real_redis.zrem(KEYS.user(USER), pending_id))

    assert await outcomes_of(new_session_store(interrupted, settings)) == {"live": 1}


async def test_a_slow_pending_creation_counts(store: SessionStore, real_redis: Redis) -> None:
    await add_pending_id(real_redis, ABANDONED_MS - 10_000, KEYS.user(USER))
    await create(store, 2)

    assert await outcomes_of(store) == {"full": 1}


@each_cap
async def test_a_failed_creation_makes_room(store: SessionStore, real_redis: Redis) -> None:
    await add_pending_id(real_redis, ABANDONED_MS + 1000, *OWNER_INDEXES)
    await create(store, 2)

    assert await outcomes_of(store, 2) == {"live": 1, "full": 1}


async def test_a_creation_that_counts_as_failed_is_refused_later(store: SessionStore, real_redis: Redis) -> None:
    session_id = await add_pending_id(real_redis, ABANDONED_MS + 1000, KEYS.user(USER))
    await create(store, 3)

    keys = KEYS.of(session_id)
    arguments = dict.fromkeys(CREATE.arguments, "1")
    command = CREATE.command(keys, **arguments)
    reply = await real_redis.eval(CREATE.text, len(CREATE.keys), *map(str, command[3:]))

    assert reply == [b"revoked"]
    assert await real_redis.pttl(keys.tombstone) <= REVOCATION_MARKER_MS


@pytest.mark.parametrize("settings", [BOTH_CAPS])
async def test_a_creation_under_an_outdated_policy_takes_one_place(
    store: SessionStore, redis_client: RedisClient, real_redis: Redis
) -> None:
    await create(store, 1)
    await new_policies(redis_client, BOTH_CAPS).put(AGENT, {"timeout_minutes": 60})

    await create(store, 1)

    assert [await real_redis.zcard(key) for owner_index in OWNER_INDEXES for key in KEYS.capped_index(owner_index)] == [
        2,
        0,
        2,
    ] * 2
    assert await outcomes_of(store, 2) == {"live": 1, "full": 1}


async def test_a_script_flush_does_not_change_the_number_of_places(store: SessionStore, real_redis: Redis) -> None:
    await create(store, 2)
    await real_redis.script_flush()

    assert await outcomes_of(store, 4) == {"live": 1, "full": 3}


async def test_a_creation_with_an_index_of_the_wrong_type_gives_up_its_other_place(
    store: SessionStore, real_redis: Redis
) -> None:
    await real_redis.set(KEYS.agent(AGENT), "not an index", px=MINUTE_MS)

    with pytest.raises(ScriptError):
        await create(store, 1)

    assert await keys_in(real_redis) == [KEYS.agent(AGENT)]


async def test_an_id_of_a_creation_without_a_reply_is_removed_later(
    store: SessionStore, redis_client: RedisClient, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = type(redis_client).execute

    async def execute_without_reply(redis_client: RedisClient, *commands: Command) -> list[Reply]:
        await execute(redis_client, *commands)
        raise StoreUnavailable("no reply")

    index_removal = IndexRemoval(redis_client, Keys("", capped=True))
    left = list[str]()
    monkeypatch.setattr(SessionEvents, "index_entry_left", lambda _, *ids: left.extend(ids[:3]))
    with monkeypatch.context() as patch:
        patch.setattr(type(redis_client), "execute", execute_without_reply)
        with pytest.raises(StoreUnavailable):
            await create(store, 1)

    index_removal.queue_ended(*left)
    await index_removal.process_queue()

    assert await keys_in(real_redis) == []


@pytest.mark.parametrize("policy", ["deny", "evict"])
async def test_a_creation_without_memory_takes_no_place(
    redis_client: RedisClient, real_redis: Redis, policy: str
) -> None:
    store = new_session_store(redis_client, Settings(session_max_per_user=3, session_cap_policy=policy))
    sessions = await create(store, 2)

    async with out_of_memory(real_redis):
        with pytest.raises(CommandRejected):
            await create(store, 1)

    assert [await real_redis.zcard(owner_index) for owner_index in OWNER_INDEXES] == [2, 2]
    assert await states(store, sessions) == ["live", "live"]
