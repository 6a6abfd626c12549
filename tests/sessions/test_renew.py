"""A manual renewal extends a session by a full timeout from now, within its maximum duration."""

import asyncio
from collections import Counter

import pytest
from redis.asyncio import Redis

from service.errors import RenewalFailed
from service.sessions.session import Session
from service.sessions.store import SessionStore
from service.settings.sessions import TimeoutConfig
from service.timestamps import iso
from tests.aging import age
from tests.attempt import attempt
from tests.conftest import create_session
from tests.redis_contents import contents, expiry_times_of, fields_of, scores_of, tombstone_of

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
    return await create_session(store, config=TimeoutConfig(60, True, 45, 5)._asdict())


async def test_a_renewal_extends_a_session_by_a_full_timeout_from_now(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 29 * MINUTE_MS)

    renewed = await store.renew(session.id)

    assert renewed.time_remaining_ms == 30 * MINUTE_MS
    assert renewed.renewal_count == 1


async def test_a_renewal_works_without_auto_renew(
    store: SessionStore, without_auto_renew: Session, real_redis: Redis
) -> None:
    await age(real_redis, without_auto_renew.id, 29 * MINUTE_MS)

    renewed = await store.renew(without_auto_renew.id)

    assert renewed.time_remaining_ms == 30 * MINUTE_MS
    assert renewed.renewal_count == 1
    assert renewed.timeout.auto_renew is False


async def test_a_renewal_is_an_activity(store: SessionStore, without_auto_renew: Session, real_redis: Redis) -> None:
    await age(real_redis, without_auto_renew.id, 10 * MINUTE_MS)

    renewed = await store.renew(without_auto_renew.id)

    assert renewed.last_activity_ms == renewed.read_at_ms


async def test_a_renewal_does_not_change_created_at(store: SessionStore, session: Session) -> None:
    assert (await store.renew(session.id)).created_at_ms == session.created_at_ms


async def test_a_renewal_returns_the_session_as_the_next_read_does(store: SessionStore, session: Session) -> None:
    renewed = await store.renew(session.id)

    found = await store.get(session.id)
    assert found == renewed._replace(read_at_ms=found.read_at_ms)


async def test_a_renewal_moves_the_expiry_of_hash_tombstone_and_indexes(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 10 * MINUTE_MS)

    renewed = await store.renew(session.id)

    expires_at_ms = renewed.read_at_ms + 30 * MINUTE_MS
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


async def test_a_renewal_does_not_change_the_revision(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await store.renew(session.id)

    assert (await fields_of(real_redis, session))["revision"] == "1"


async def test_every_renewal_is_counted(store: SessionStore, session: Session) -> None:
    await store.renew(session.id)
    await store.renew(session.id)

    assert (await store.renew(session.id)).renewal_count == 3


async def test_a_renewal_does_not_extend_beyond_the_maximum_duration(
    store: SessionStore, limited: Session, real_redis: Redis
) -> None:
    await age(real_redis, limited.id, 20 * MINUTE_MS)

    renewed = await store.renew(limited.id)

    assert renewed.expires_at_ms == renewed.created_at_ms + 45 * MINUTE_MS
    assert renewed.renewal_count == 1


async def test_a_renewal_up_to_the_maximum_duration_changes_the_reason(
    store: SessionStore, limited: Session, real_redis: Redis
) -> None:
    await age(real_redis, limited.id, 20 * MINUTE_MS)

    await store.renew(limited.id)

    assert (await tombstone_of(real_redis, limited))["reason"] == "max_duration"


async def test_at_the_maximum_duration_a_renewal_fails(store: SessionStore, at_maximum: Session) -> None:
    with pytest.raises(RenewalFailed) as caught:
        await store.renew(at_maximum.id)

    assert caught.value.facts == {
        "sessionId": at_maximum.id,
        "maxDurationMinutes": 45,
        "createdAt": iso(at_maximum.created_at_ms),
        "expiresAt": iso(at_maximum.created_at_ms + 45 * MINUTE_MS),
    }


async def test_at_the_maximum_duration_a_renewal_fails_without_auto_renew(store: SessionStore) -> None:
    without_auto_renew = await create_session(store, config=TimeoutConfig(45, False, 45, 5)._asdict())

    assert await attempt(store.renew, without_auto_renew.id) == "at_maximum"


async def test_a_failed_renewal_changes_nothing(store: SessionStore, at_maximum: Session, real_redis: Redis) -> None:
    before = await contents(real_redis)

    assert await attempt(store.renew, at_maximum.id) == "at_maximum"

    assert await contents(real_redis) == before


async def test_a_longer_maximum_duration_allows_a_renewal_again(
    store: SessionStore, at_maximum: Session, real_redis: Redis
) -> None:
    await age(real_redis, at_maximum.id, 20 * MINUTE_MS)
    await store.update_timeout(at_maximum.id, {"max_duration_minutes": 120})

    renewed = await store.renew(at_maximum.id)

    assert renewed.time_remaining_ms == 60 * MINUTE_MS


async def test_a_renewal_does_not_revive_an_expired_session(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)

    outcomes = [await attempt(store.renew, session.id), await attempt(store.get, session.id)]

    assert outcomes == ["expired", "expired"]


async def test_two_concurrent_renewals_are_both_counted(store: SessionStore, session: Session) -> None:
    await asyncio.gather(store.renew(session.id), store.renew(session.id))

    assert (await store.get(session.id)).renewal_count == 2


async def test_twenty_concurrent_renewals_are_each_counted_once(store: SessionStore, session: Session) -> None:
    renewed = await asyncio.gather(*(store.renew(session.id) for _ in range(20)))

    assert {each.renewal_count for each in renewed} == set(range(1, 21))
    assert (await store.get(session.id)).renewal_count == 20


async def test_only_one_of_twenty_renewals_reaches_the_maximum_duration(
    store: SessionStore, limited: Session, real_redis: Redis
) -> None:
    await age(real_redis, limited.id, 20 * MINUTE_MS)

    outcomes = await asyncio.gather(*(attempt(store.renew, limited.id) for _ in range(20)))

    assert Counter(outcomes) == {"live": 1, "at_maximum": 19}
