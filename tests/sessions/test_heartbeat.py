"""An activity in a session, as a heartbeat is: it moves lastActivity, and renews a session that renews itself."""

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
from tests.sessions.evidence import ends_of, fields_of, scores_of, tombstone_of

MINUTE_MS = 60_000
RETENTION_MS = 1440 * MINUTE_MS


@pytest.fixture
async def passive(store: SessionStore) -> Session:
    """A session that does not renew itself."""
    return await create_session(store, config=TimeoutConfig(30, False, 720, 5)._asdict())


@pytest.fixture
async def capped(store: SessionStore) -> Session:
    """A session whose maximum duration is half as long again as its timeout."""
    return await create_session(store, config=TimeoutConfig(30, True, 45, 5)._asdict())


@pytest.fixture
async def at_its_maximum(store: SessionStore) -> Session:
    return await create_session(store, config=TimeoutConfig(60, True, 60, 5)._asdict())


async def test_an_activity_is_now(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await age(real_redis, session.id, 10 * MINUTE_MS)

    touched = await store.heartbeat(session.id)

    assert touched.last_activity_ms == touched.read_at_ms
    assert touched.read_at_ms >= session.read_at_ms


async def test_a_session_that_renews_itself_is_extended_to_a_full_timeout(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 29 * MINUTE_MS)

    touched = await store.heartbeat(session.id)

    assert touched.time_remaining_ms == 30 * MINUTE_MS
    assert touched.renewal_count == 1


async def test_its_creation_stays_where_it_was(store: SessionStore, session: Session) -> None:
    touched = await store.heartbeat(session.id)

    assert touched.created_at_ms == session.created_at_ms


async def test_what_is_answered_is_what_is_read_next(store: SessionStore, session: Session) -> None:
    touched = await store.heartbeat(session.id)

    found = await store.get(session.id)
    assert found == touched._replace(read_at_ms=found.read_at_ms)


async def test_its_end_moves_in_its_hash_its_tombstone_and_its_indexes(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 10 * MINUTE_MS)

    touched = await store.heartbeat(session.id)

    ends_at_ms = touched.read_at_ms + 30 * MINUTE_MS
    assert await ends_of(real_redis, session) == {"session": ends_at_ms, "tombstone": ends_at_ms + RETENTION_MS}
    assert (await tombstone_of(real_redis, session))["expiresAt"] == str(ends_at_ms)
    assert await scores_of(real_redis, session) == {
        "expiry": ends_at_ms,
        "warning": ends_at_ms - 5 * MINUTE_MS,
        "created": session.created_at_ms - 10 * MINUTE_MS,
    }


async def test_it_is_no_revision(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await store.heartbeat(session.id)

    assert (await fields_of(real_redis, session))["revision"] == "1"


async def test_metadata_outlives_an_activity(store: SessionStore, session: Session) -> None:
    assert (await store.heartbeat(session.id)).metadata == b'{"channel":"web"}'


async def test_one_that_does_not_renew_itself_keeps_its_end(
    store: SessionStore, passive: Session, real_redis: Redis
) -> None:
    await age(real_redis, passive.id, 10 * MINUTE_MS)

    touched = await store.heartbeat(passive.id)

    assert touched.expires_at_ms == passive.expires_at_ms - 10 * MINUTE_MS
    assert touched.renewal_count == 0


async def test_one_that_does_not_renew_itself_is_active_all_the_same(
    store: SessionStore, passive: Session, real_redis: Redis
) -> None:
    await age(real_redis, passive.id, 10 * MINUTE_MS)

    touched = await store.heartbeat(passive.id)

    assert touched.last_activity_ms == touched.read_at_ms
    assert (await store.get(passive.id)).last_activity_ms == touched.read_at_ms


async def test_one_that_does_not_renew_itself_expires_in_spite_of_its_activity(
    store: SessionStore, passive: Session, real_redis: Redis
) -> None:
    await age(real_redis, passive.id, 29 * MINUTE_MS)
    await store.heartbeat(passive.id)

    touched = await store.get(passive.id)

    assert touched.time_remaining_ms <= 1 * MINUTE_MS
    assert (await ends_of(real_redis, passive))["session"] == touched.expires_at_ms


async def test_no_renewal_goes_beyond_the_maximum_duration(
    store: SessionStore, capped: Session, real_redis: Redis
) -> None:
    await age(real_redis, capped.id, 20 * MINUTE_MS)

    touched = await store.heartbeat(capped.id)

    assert touched.expires_at_ms == touched.created_at_ms + 45 * MINUTE_MS
    assert touched.renewal_count == 1


async def test_a_renewal_up_to_the_maximum_duration_changes_the_reason_to_end(
    store: SessionStore, capped: Session, real_redis: Redis
) -> None:
    await age(real_redis, capped.id, 20 * MINUTE_MS)

    await store.heartbeat(capped.id)

    assert (await tombstone_of(real_redis, capped))["reason"] == "max_duration"


async def test_at_the_maximum_duration_an_activity_is_no_renewal(
    store: SessionStore, at_its_maximum: Session, real_redis: Redis
) -> None:
    await age(real_redis, at_its_maximum.id, 20 * MINUTE_MS)

    touched = await store.heartbeat(at_its_maximum.id)

    assert touched.renewal_count == 0
    assert touched.expires_at_ms == at_its_maximum.expires_at_ms - 20 * MINUTE_MS
    assert touched.last_activity_ms == touched.read_at_ms


async def test_at_the_maximum_duration_the_last_renewal_stays_the_last(
    store: SessionStore, at_its_maximum: Session, real_redis: Redis
) -> None:
    await age(real_redis, at_its_maximum.id, 20 * MINUTE_MS)

    touched = await store.heartbeat(at_its_maximum.id)

    assert (await fields_of(real_redis, at_its_maximum))["renewedAt"] == str(touched.created_at_ms)


async def test_an_activity_does_not_bring_an_expired_session_back(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)

    answers = [await attempt(store.heartbeat, session.id), await attempt(store.get, session.id)]

    assert answers == ["expired", "expired"]


async def test_twenty_activities_count_twenty_renewals(store: SessionStore, session: Session) -> None:
    touched = await asyncio.gather(*(store.heartbeat(session.id) for _ in range(20)))

    assert {each.renewal_count for each in touched} == set(range(1, 21))
    assert (await store.get(session.id)).renewal_count == 20


async def test_of_twenty_activities_one_renews_up_to_the_maximum(
    store: SessionStore, capped: Session, real_redis: Redis
) -> None:
    await age(real_redis, capped.id, 20 * MINUTE_MS)

    touched = await asyncio.gather(*(store.heartbeat(capped.id) for _ in range(20)))

    assert Counter(each.renewal_count for each in touched) == {1: 20}
