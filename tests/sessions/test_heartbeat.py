"""A heartbeat updates lastActivity, and renews a session with autoRenew."""

import asyncio
from collections import Counter

import pytest
from redis.asyncio import Redis

from service.sessions.session import Session
from service.sessions.store import SessionStore
from service.settings.sessions import TimeoutConfig
from tests.aging import age
from tests.attempt import attempt
from tests.conftest import create_session
from tests.redis_contents import expiry_times_of, fields_of, scores_of, tombstone_of

MINUTE_MS = 60_000
RETENTION_MS = 1440 * MINUTE_MS


@pytest.fixture
async def without_auto_renew(store: SessionStore) -> Session:
    """A session without autoRenew."""
    return await create_session(store, config=TimeoutConfig(30, False, 720, 5)._asdict())


@pytest.fixture
async def limited(store: SessionStore) -> Session:
    """A session with a timeout of 30 minutes and a maximum duration of 45."""
    return await create_session(store, config=TimeoutConfig(30, True, 45, 5)._asdict())


@pytest.fixture
async def at_maximum(store: SessionStore) -> Session:
    return await create_session(store, config=TimeoutConfig(60, True, 60, 5)._asdict())


async def test_a_heartbeat_sets_last_activity_to_now(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await age(real_redis, session.id, 10 * MINUTE_MS)

    updated = await store.heartbeat(session.id)

    assert updated.last_activity_ms == updated.read_at_ms
    assert updated.read_at_ms >= session.read_at_ms


async def test_a_heartbeat_extends_a_session_with_auto_renew_by_a_full_timeout(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 29 * MINUTE_MS)

    updated = await store.heartbeat(session.id)

    assert updated.time_remaining_ms == 30 * MINUTE_MS
    assert updated.renewal_count == 1


async def test_a_heartbeat_does_not_change_created_at(store: SessionStore, session: Session) -> None:
    updated = await store.heartbeat(session.id)

    assert updated.created_at_ms == session.created_at_ms


async def test_a_heartbeat_returns_the_session_as_the_next_read_does(store: SessionStore, session: Session) -> None:
    updated = await store.heartbeat(session.id)

    found = await store.get(session.id)
    assert found == updated._replace(read_at_ms=found.read_at_ms)


async def test_a_renewal_moves_the_expiry_of_hash_tombstone_and_indexes(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 10 * MINUTE_MS)

    updated = await store.heartbeat(session.id)

    expires_at_ms = updated.read_at_ms + 30 * MINUTE_MS
    assert await expiry_times_of(real_redis, session) == {
        "session": expires_at_ms,
        "tombstone": expires_at_ms + RETENTION_MS,
    }
    assert (await tombstone_of(real_redis, session))["expiresAt"] == str(expires_at_ms)
    assert await scores_of(real_redis, session) == {
        "expiry": expires_at_ms,
        "warning": expires_at_ms - 5 * MINUTE_MS,
        "created": session.created_at_ms - 10 * MINUTE_MS,
    }


async def test_a_heartbeat_does_not_change_the_revision(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await store.heartbeat(session.id)

    assert (await fields_of(real_redis, session))["revision"] == "1"


async def test_a_heartbeat_keeps_the_metadata(store: SessionStore, session: Session) -> None:
    assert (await store.heartbeat(session.id)).metadata == b'{"channel":"web"}'


async def test_without_auto_renew_a_heartbeat_does_not_move_the_expiry(
    store: SessionStore, without_auto_renew: Session, real_redis: Redis
) -> None:
    await age(real_redis, without_auto_renew.id, 10 * MINUTE_MS)

    updated = await store.heartbeat(without_auto_renew.id)

    assert updated.expires_at_ms == without_auto_renew.expires_at_ms - 10 * MINUTE_MS
    assert updated.renewal_count == 0


async def test_without_auto_renew_a_heartbeat_sets_last_activity(
    store: SessionStore, without_auto_renew: Session, real_redis: Redis
) -> None:
    await age(real_redis, without_auto_renew.id, 10 * MINUTE_MS)

    updated = await store.heartbeat(without_auto_renew.id)

    assert updated.last_activity_ms == updated.read_at_ms
    assert (await store.get(without_auto_renew.id)).last_activity_ms == updated.read_at_ms


async def test_without_auto_renew_a_session_expires_despite_heartbeats(
    store: SessionStore, without_auto_renew: Session, real_redis: Redis
) -> None:
    await age(real_redis, without_auto_renew.id, 29 * MINUTE_MS)
    await store.heartbeat(without_auto_renew.id)

    updated = await store.get(without_auto_renew.id)

    assert updated.time_remaining_ms <= 1 * MINUTE_MS
    assert (await expiry_times_of(real_redis, without_auto_renew))["session"] == updated.expires_at_ms


async def test_a_heartbeat_does_not_extend_beyond_the_maximum_duration(
    store: SessionStore, limited: Session, real_redis: Redis
) -> None:
    await age(real_redis, limited.id, 20 * MINUTE_MS)

    updated = await store.heartbeat(limited.id)

    assert updated.expires_at_ms == updated.created_at_ms + 45 * MINUTE_MS
    assert updated.renewal_count == 1


async def test_a_renewal_up_to_the_maximum_duration_changes_the_reason(
    store: SessionStore, limited: Session, real_redis: Redis
) -> None:
    await age(real_redis, limited.id, 20 * MINUTE_MS)

    await store.heartbeat(limited.id)

    assert (await tombstone_of(real_redis, limited))["reason"] == "max_duration"


async def test_at_the_maximum_duration_a_heartbeat_does_not_renew(
    store: SessionStore, at_maximum: Session, real_redis: Redis
) -> None:
    await age(real_redis, at_maximum.id, 20 * MINUTE_MS)

    updated = await store.heartbeat(at_maximum.id)

    assert updated.renewal_count == 0
    assert updated.expires_at_ms == at_maximum.expires_at_ms - 20 * MINUTE_MS
    assert updated.last_activity_ms == updated.read_at_ms


async def test_at_the_maximum_duration_a_heartbeat_does_not_change_renewed_at(
    store: SessionStore, at_maximum: Session, real_redis: Redis
) -> None:
    await age(real_redis, at_maximum.id, 20 * MINUTE_MS)

    updated = await store.heartbeat(at_maximum.id)

    assert (await fields_of(real_redis, at_maximum))["renewedAt"] == str(updated.created_at_ms)


async def test_a_heartbeat_does_not_revive_an_expired_session(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)

    outcomes = [await attempt(store.heartbeat, session.id), await attempt(store.get, session.id)]

    assert outcomes == ["expired", "expired"]


async def test_twenty_concurrent_heartbeats_count_twenty_renewals(store: SessionStore, session: Session) -> None:
    updated = await asyncio.gather(*(store.heartbeat(session.id) for _ in range(20)))

    assert {each.renewal_count for each in updated} == set(range(1, 21))
    assert (await store.get(session.id)).renewal_count == 20


async def test_only_one_of_twenty_heartbeats_renews_up_to_the_maximum(
    store: SessionStore, limited: Session, real_redis: Redis
) -> None:
    await age(real_redis, limited.id, 20 * MINUTE_MS)

    updated = await asyncio.gather(*(store.heartbeat(limited.id) for _ in range(20)))

    assert Counter(each.renewal_count for each in updated) == {1: 20}
