"""Renewing a session by hand: a full timeout from now, whatever autoRenew says, within its maximum duration."""

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
from tests.sessions.evidence import contents, ends_of, fields_of, scores_of, tombstone_of

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
    return await create_session(store, config=TimeoutConfig(60, True, 45, 5)._asdict())


async def test_a_renewal_extends_a_session_to_a_full_timeout_from_now(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 29 * MINUTE_MS)

    renewed = await store.renew(session.id)

    assert renewed.time_remaining_ms == 30 * MINUTE_MS
    assert renewed.renewal_count == 1


async def test_it_works_on_a_session_that_does_not_renew_itself(
    store: SessionStore, passive: Session, real_redis: Redis
) -> None:
    await age(real_redis, passive.id, 29 * MINUTE_MS)

    renewed = await store.renew(passive.id)

    assert renewed.time_remaining_ms == 30 * MINUTE_MS
    assert renewed.renewal_count == 1
    assert renewed.timeout.auto_renew is False


async def test_it_is_an_activity_too(store: SessionStore, passive: Session, real_redis: Redis) -> None:
    await age(real_redis, passive.id, 10 * MINUTE_MS)

    renewed = await store.renew(passive.id)

    assert renewed.last_activity_ms == renewed.read_at_ms


async def test_it_leaves_the_creation_where_it_was(store: SessionStore, session: Session) -> None:
    assert (await store.renew(session.id)).created_at_ms == session.created_at_ms


async def test_what_is_answered_is_what_is_read_next(store: SessionStore, session: Session) -> None:
    renewed = await store.renew(session.id)

    found = await store.get(session.id)
    assert found == renewed._replace(read_at_ms=found.read_at_ms)


async def test_it_moves_the_end_in_hash_tombstone_and_indexes(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 10 * MINUTE_MS)

    renewed = await store.renew(session.id)

    ends_at_ms = renewed.read_at_ms + 30 * MINUTE_MS
    assert await ends_of(real_redis, session) == {"session": ends_at_ms, "tombstone": ends_at_ms + RETENTION_MS}
    assert (await tombstone_of(real_redis, session))["expiresAt"] == str(ends_at_ms)
    assert await scores_of(real_redis, session) == {
        "expiry": ends_at_ms,
        "warning": ends_at_ms - 5 * MINUTE_MS,
        "created": session.created_at_ms - 10 * MINUTE_MS,
    }


async def test_it_is_no_revision(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await store.renew(session.id)

    assert (await fields_of(real_redis, session))["revision"] == "1"


async def test_every_renewal_counts(store: SessionStore, session: Session) -> None:
    await store.renew(session.id)
    await store.renew(session.id)

    assert (await store.renew(session.id)).renewal_count == 3


async def test_it_does_not_go_beyond_the_maximum_duration(
    store: SessionStore, capped: Session, real_redis: Redis
) -> None:
    await age(real_redis, capped.id, 20 * MINUTE_MS)

    renewed = await store.renew(capped.id)

    assert renewed.expires_at_ms == renewed.created_at_ms + 45 * MINUTE_MS
    assert renewed.renewal_count == 1


async def test_one_up_to_the_maximum_duration_changes_the_reason_to_end(
    store: SessionStore, capped: Session, real_redis: Redis
) -> None:
    await age(real_redis, capped.id, 20 * MINUTE_MS)

    await store.renew(capped.id)

    assert (await tombstone_of(real_redis, capped))["reason"] == "max_duration"


async def test_at_the_maximum_duration_nothing_is_left_to_extend(store: SessionStore, at_its_maximum: Session) -> None:
    with pytest.raises(RenewalFailed) as refusal:
        await store.renew(at_its_maximum.id)

    assert refusal.value.facts == {
        "sessionId": at_its_maximum.id,
        "maxDurationMinutes": 45,
        "createdAt": iso(at_its_maximum.created_at_ms),
        "expiresAt": iso(at_its_maximum.created_at_ms + 45 * MINUTE_MS),
    }


async def test_nothing_is_left_to_extend_in_one_that_does_not_renew_itself_either(store: SessionStore) -> None:
    passive = await create_session(store, config=TimeoutConfig(45, False, 45, 5)._asdict())

    assert await attempt(store.renew, passive.id) == "at_maximum"


async def test_a_refused_renewal_changes_nothing(
    store: SessionStore, at_its_maximum: Session, real_redis: Redis
) -> None:
    before = await contents(real_redis)

    assert await attempt(store.renew, at_its_maximum.id) == "at_maximum"

    assert await contents(real_redis) == before


async def test_a_longer_maximum_duration_leaves_something_to_extend(
    store: SessionStore, at_its_maximum: Session, real_redis: Redis
) -> None:
    await age(real_redis, at_its_maximum.id, 20 * MINUTE_MS)
    await store.update_timeout(at_its_maximum.id, {"max_duration_minutes": 120})

    renewed = await store.renew(at_its_maximum.id)

    assert renewed.time_remaining_ms == 60 * MINUTE_MS


async def test_it_does_not_bring_an_expired_session_back(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)

    answers = [await attempt(store.renew, session.id), await attempt(store.get, session.id)]

    assert answers == ["expired", "expired"]


async def test_two_renewals_at_once_count_two(store: SessionStore, session: Session) -> None:
    await asyncio.gather(store.renew(session.id), store.renew(session.id))

    assert (await store.get(session.id)).renewal_count == 2


async def test_twenty_renewals_at_once_count_each_once(store: SessionStore, session: Session) -> None:
    renewed = await asyncio.gather(*(store.renew(session.id) for _ in range(20)))

    assert {each.renewal_count for each in renewed} == set(range(1, 21))
    assert (await store.get(session.id)).renewal_count == 20


async def test_of_twenty_renewals_one_reaches_the_maximum_duration(
    store: SessionStore, capped: Session, real_redis: Redis
) -> None:
    await age(real_redis, capped.id, 20 * MINUTE_MS)

    answers = await asyncio.gather(*(attempt(store.renew, capped.id) for _ in range(20)))

    assert Counter(answers) == {"live": 1, "at_maximum": 19}
