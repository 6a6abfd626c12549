"""Creating a session: its values, its keys in Redis and its indexes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.redis_client.errors import CommandRejected, ScriptError
from service.redis_client.factory import redis_py_client
from service.redis_client.monitor import StoreMonitor
from service.sessions.keys import SHARDS
from service.sessions.scripts import CREATE
from service.sessions.session import Session, new_session_id
from service.sessions.store import SessionStore
from service.settings import Settings
from service.settings.sessions import TimeoutConfig
from tests.attempt import attempt
from tests.conftest import AGENT, USER, create_session, new_session_store
from tests.redis_contents import (
    KEYS,
    contents,
    expiry_times_of,
    fields_of,
    indexed_at_ms,
    keys_in,
    scores_of,
    tombstone_of,
)
from tests.redis_server import RedisServer
from tests.unpipelined_client import UnpipelinedClient

MINUTE_MS = 60_000
RETENTION_MS = 1440 * MINUTE_MS
AN_ID = "ab90c3cc-0d44-4b50-8888-8dd25736052a"
OTHER_USER = "00000000-0000-4000-8000-000000000001"


async def index_sizes(redis: Redis) -> dict[str, int]:
    """The number of ids in each kind of index, over all shards."""
    return {
        "expiry": sum([await redis.zcard(KEYS.expiry(shard)) for shard in SHARDS]),
        "warning": sum([await redis.zcard(KEYS.warning(shard)) for shard in SHARDS]),
        "created": sum([await redis.zcard(KEYS.of(shard).created) for shard in SHARDS]),
    }


async def test_a_session_expires_after_its_timeout(session: Session) -> None:
    assert session.expires_at_ms == session.created_at_ms + 30 * MINUTE_MS


async def test_a_new_session_has_its_full_timeout_remaining(session: Session) -> None:
    assert session.read_at_ms == session.created_at_ms
    assert session.time_remaining_ms == 30 * MINUTE_MS


async def test_creation_is_the_first_activity_and_not_a_renewal(session: Session) -> None:
    assert session.last_activity_ms == session.created_at_ms
    assert session.renewal_count == 0


async def test_a_session_has_an_agent_and_a_user(session: Session) -> None:
    assert (session.agent_id, session.user_id) == (AGENT, USER)


async def test_a_session_has_the_requested_timeouts(store: SessionStore) -> None:
    session = await create_session(store, config=TimeoutConfig(60, False, 120, 10)._asdict())

    assert session.timeout == TimeoutConfig(60, False, 120, 10)


async def test_a_maximum_duration_below_the_timeout_limits_the_expiry(store: SessionStore) -> None:
    session = await create_session(store, config=TimeoutConfig(60, True, 45, 5)._asdict())

    assert session.time_remaining_ms == 45 * MINUTE_MS


async def test_minutes_may_be_fractions(store: SessionStore, real_redis: Redis) -> None:
    session = await create_session(store, config=TimeoutConfig(7.25, True, 720.5, 0.001)._asdict())

    assert session.time_remaining_ms == 435_000
    assert session.timeout == TimeoutConfig(7.25, True, 720.5, 0.001)
    assert (await scores_of(real_redis, session))["warning"] == session.expires_at_ms - 60


async def test_the_hash_has_readable_fields(session: Session, real_redis: Redis) -> None:
    now = str(session.created_at_ms)

    assert await fields_of(real_redis, session) == {
        "agentId": AGENT,
        "userId": USER,
        "createdAt": now,
        "lastActivity": now,
        "renewedAt": now,
        "expiresAt": str(session.created_at_ms + 30 * MINUTE_MS),
        "timeoutMinutes": "30",
        "autoRenew": "true",
        "maxDurationMinutes": "720",
        "warningThresholdMinutes": "5",
        "renewalCount": "0",
        "revision": "1",
        "metadata": '{"channel":"web"}',
    }


async def test_the_tombstone_is_written_at_creation(session: Session, real_redis: Redis) -> None:
    assert await tombstone_of(real_redis, session) == {
        "agentId": AGENT,
        "userId": USER,
        "expiresAt": str(session.expires_at_ms),
        "reason": "inactivity",
    }


async def test_the_hash_expires_with_the_session(session: Session, real_redis: Redis) -> None:
    assert (await expiry_times_of(real_redis, session))["session"] == session.expires_at_ms


async def test_the_tombstone_expires_after_its_retention(session: Session, real_redis: Redis) -> None:
    assert (await expiry_times_of(real_redis, session))["tombstone"] == session.expires_at_ms + RETENTION_MS


async def test_the_reason_is_max_duration_if_it_is_not_later_than_the_timeout(
    store: SessionStore, real_redis: Redis
) -> None:
    session = await create_session(store, config=TimeoutConfig(30, True, 30, 5)._asdict())

    assert (await tombstone_of(real_redis, session))["reason"] == "max_duration"


async def test_the_session_is_in_the_indexes_of_its_shard(session: Session, real_redis: Redis) -> None:
    assert await scores_of(real_redis, session) == {
        "expiry": session.expires_at_ms,
        "warning": session.expires_at_ms - 5 * MINUTE_MS,
        "created": session.created_at_ms,
    }


async def test_the_session_is_in_the_owner_indexes(session: Session, real_redis: Redis) -> None:
    assert await real_redis.zrange(KEYS.user(USER), 0, -1) == [session.id.encode()]
    assert await real_redis.zrange(KEYS.agent(AGENT), 0, -1) == [session.id.encode()]


async def test_an_owner_index_lives_twice_as_long_as_any_session_and_a_day(session: Session, real_redis: Redis) -> None:
    added_at_ms = await indexed_at_ms(real_redis, KEYS.user(USER), session)

    assert await real_redis.pexpiretime(KEYS.user(USER)) == added_at_ms + 2 * (2 * 1440 + 1440) * MINUTE_MS


async def test_a_creation_extends_the_lifetime_of_the_owner_index(
    store: SessionStore, settings: Settings, session: Session, real_redis: Redis
) -> None:
    await real_redis.pexpireat(KEYS.agent(AGENT), session.created_at_ms + MINUTE_MS)

    await create_session(store)

    assert (
        await real_redis.pexpiretime(KEYS.agent(AGENT)) >= session.created_at_ms + 2 * settings.owner_index_lifetime_ms
    )


async def test_an_owner_index_drops_ids_older_than_its_remaining_lifetime(
    store: SessionStore, settings: Settings, session: Session, real_redis: Redis
) -> None:
    too_old_ms = session.created_at_ms - 2 * settings.owner_index_lifetime_ms
    await real_redis.zadd(KEYS.user(USER), {"too old": too_old_ms, "old": too_old_ms + MINUTE_MS})

    newer = await create_session(store)

    assert set(await real_redis.zrange(KEYS.user(USER), 0, -1)) == {b"old", session.id.encode(), newer.id.encode()}


@pytest.mark.parametrize(
    "metadata",
    [
        b"{}",
        b'{ "spaced" :  [ ] }',
        b'{"large":9223372036854775807,"fraction":1.10}',
        '{"größe":"\U0001f600"}'.encode(),
        b'{"nul":"\\u0000"}',
        b'{"long":"' + 10_000 * b"x" + b'"}',
    ],
)
async def test_metadata_is_returned_byte_for_byte(store: SessionStore, metadata: bytes) -> None:
    session = await create_session(store, metadata=metadata)

    assert session.metadata == metadata
    assert (await store.get(session.id)).metadata == metadata


async def test_creation_works_after_a_script_flush(store: SessionStore, real_redis: Redis) -> None:
    await real_redis.script_flush()

    session = await create_session(store)

    assert await attempt(store.get, session.id) == "live"


async def test_no_session_is_live_without_entries_in_its_owner_indexes(
    store: SessionStore, redis_client: RedisClient, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = recorded_ids(monkeypatch)
    await redis_client.broadcast(("PING",))  # connecting loads the scripts
    await real_redis.script_flush()
    await real_redis.script_load(CREATE.text)

    session = await create_session(store)

    assert ids == [ids[0], session.id]
    assert await attempt(store.get, ids[0]) == "missing"
    assert await index_sizes(real_redis) == {"expiry": 1, "warning": 1, "created": 1}
    assert await real_redis.zrange(KEYS.user(USER), 0, -1) == [session.id.encode()]


@pytest.mark.parametrize("owner_index", [KEYS.agent(AGENT), KEYS.user(USER)], ids=["agent", "user"])
async def test_no_session_is_created_if_an_owner_index_has_the_wrong_type(
    store: SessionStore, real_redis: Redis, owner_index: str
) -> None:
    await real_redis.set(owner_index, "not an index", px=MINUTE_MS)

    with pytest.raises(ScriptError):
        await create_session(store)

    assert await index_sizes(real_redis) == {"expiry": 0, "warning": 0, "created": 0}
    assert await keys_in(real_redis) == [owner_index]


async def test_no_session_is_created_if_redis_rejects_an_owner_index(
    restricted: SessionStore, real_redis: Redis
) -> None:
    with pytest.raises(CommandRejected):
        await create_session(restricted)

    assert await keys_in(real_redis) == []


@pytest.fixture
async def restricted(redis_server: RedisServer, real_redis: Redis, settings: Settings) -> AsyncIterator[SessionStore]:
    """A store whose Redis user may not access the owner indexes of users."""
    await real_redis.acl_setuser(
        "restricted",
        enabled=True,
        passwords=["+secret"],
        categories=["+@all"],
        keys=["session:*", "sessions:{*", "sessions:agent:*"],
    )
    redis_client = UnpipelinedClient(
        redis_py_client(redis_server.url.replace("://", "://restricted:secret@"), 2), 2, StoreMonitor(Metrics())
    )
    yield new_session_store(redis_client, settings)
    await redis_client.aclose()
    await real_redis.acl_deluser("restricted")


def recorded_ids(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids that are generated from now on."""
    ids: list[str] = []

    def recorded_id(*_: str) -> str:
        ids.append(new_session_id())
        return ids[-1]

    monkeypatch.setattr("service.sessions.creation.new_session_id", recorded_id)
    return ids


async def test_the_id_of_a_live_session_is_not_used_again(
    store: SessionStore, session: Session, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.sessions.creation.new_session_id", lambda *_: session.id)
    before = await fields_of(real_redis, session)

    outcome = await attempt(create_session, store, user_id=OTHER_USER)

    assert outcome == "unknown"
    assert await fields_of(real_redis, session) == before


async def test_the_id_of_a_tombstone_is_not_used_again(
    store: SessionStore, session: Session, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.sessions.creation.new_session_id", lambda *_: session.id)
    await real_redis.delete(KEYS.session(session.id))

    assert await attempt(create_session, store) == "unknown"


async def test_an_id_that_is_added_twice_keeps_its_first_score(
    store: SessionStore, session: Session, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.sessions.creation.new_session_id", lambda *_: session.id)
    await real_redis.zadd(KEYS.user(USER), {session.id: session.created_at_ms - MINUTE_MS})

    await attempt(create_session, store)

    assert await indexed_at_ms(real_redis, KEYS.user(USER), session) == session.created_at_ms - MINUTE_MS


async def test_only_one_of_twenty_creations_with_the_same_id_succeeds(
    store: SessionStore, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.sessions.creation.new_session_id", lambda *_: AN_ID)

    outcomes = await asyncio.gather(*(attempt(create_session, store) for _ in range(20)))

    assert Counter(outcomes) == {"live": 1, "unknown": 19}
    assert await index_sizes(real_redis) == {"expiry": 1, "warning": 1, "created": 1}


async def test_two_hundred_concurrent_creations_create_two_hundred_sessions(
    store: SessionStore, real_redis: Redis
) -> None:
    sessions = await asyncio.gather(*(create_session(store) for _ in range(200)))

    assert len({session.id for session in sessions}) == 200
    assert await index_sizes(real_redis) == {"expiry": 200, "warning": 200, "created": 200}
    assert await real_redis.zcard(KEYS.user(USER)) == 200
    assert len([key for key in await contents(real_redis) if key.startswith("session:")]) == 400
