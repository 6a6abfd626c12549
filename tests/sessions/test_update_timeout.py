"""Changing the timeouts of a live session merges them and recomputes the expiry from the last renewal."""

import asyncio
from collections import Counter

import pytest
from redis.asyncio import Redis

from service.errors import InvalidTimeoutConfig
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
async def customized(store: SessionStore) -> Session:
    """A session whose timeouts all differ from the defaults."""
    return await create_session(store, config=TimeoutConfig(60, False, 120, 10)._asdict())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"timeout_minutes": 90}, TimeoutConfig(90, False, 120, 10)),
        ({"auto_renew": True}, TimeoutConfig(60, True, 120, 10)),
        ({"timeout_minutes": 180}, TimeoutConfig(180, False, 180, 10)),
        ({"max_duration_minutes": 240}, TimeoutConfig(60, False, 240, 10)),
        ({"max_duration_minutes": 30}, TimeoutConfig(60, False, 30, 10)),
        ({"warning_threshold_minutes": 20}, TimeoutConfig(60, False, 120, 20)),
        ({"timeout_minutes": 7.5, "warning_threshold_minutes": 0.5}, TimeoutConfig(7.5, False, 120, 0.5)),
        ({}, TimeoutConfig(60, False, 120, 10)),
    ],
)
async def test_changes_merge_into_the_timeouts_of_the_session(
    store: SessionStore, customized: Session, changes: dict[str, float | bool], expected: TimeoutConfig
) -> None:
    updated = await store.update_timeout(customized.id, changes)

    assert updated.timeout == expected
    assert (await store.get(customized.id)).timeout == expected


async def test_successive_changes_accumulate(store: SessionStore, customized: Session) -> None:
    await store.update_timeout(customized.id, {"timeout_minutes": 90})
    await store.update_timeout(customized.id, {"auto_renew": True})

    assert (await store.get(customized.id)).timeout == TimeoutConfig(90, True, 120, 10)


async def test_without_a_renewal_the_expiry_is_computed_from_the_creation(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 10 * MINUTE_MS)

    expected = await store.update_timeout(session.id, {"timeout_minutes": 60})

    assert expected.expires_at_ms == expected.created_at_ms + 60 * MINUTE_MS


async def test_the_expiry_is_computed_from_the_last_renewal(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 10 * MINUTE_MS)
    renewed = await store.renew(session.id)

    expected = await store.update_timeout(session.id, {"timeout_minutes": 60})

    assert expected.expires_at_ms == renewed.read_at_ms + 60 * MINUTE_MS


async def test_the_expiry_is_not_computed_from_an_activity_without_renewal(
    store: SessionStore, customized: Session, real_redis: Redis
) -> None:
    await age(real_redis, customized.id, 10 * MINUTE_MS)
    await store.heartbeat(customized.id)

    expected = await store.update_timeout(customized.id, {"timeout_minutes": 90})

    assert expected.expires_at_ms == expected.created_at_ms + 90 * MINUTE_MS


async def test_a_change_is_not_an_activity_or_a_renewal(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 10 * MINUTE_MS)

    expected = await store.update_timeout(session.id, {"timeout_minutes": 60})

    assert expected.last_activity_ms == session.last_activity_ms - 10 * MINUTE_MS
    assert expected.renewal_count == 0


async def test_a_change_increments_the_revision(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await store.update_timeout(session.id, {"timeout_minutes": 60})
    await store.update_timeout(session.id, {"timeout_minutes": 90})

    assert (await fields_of(real_redis, session))["revision"] == "3"


async def test_a_change_moves_the_expiry_of_hash_tombstone_and_indexes(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    expected = await store.update_timeout(session.id, {"timeout_minutes": 60, "warning_threshold_minutes": 15})

    expires_at_ms = session.created_at_ms + 60 * MINUTE_MS
    assert expected.expires_at_ms == expires_at_ms
    assert await expiry_times_of(real_redis, session) == {
        "session": expires_at_ms,
        "tombstone": expires_at_ms + RETENTION_MS,
    }
    assert (await tombstone_of(real_redis, session))["expiresAt"] == str(expires_at_ms)
    assert await scores_of(real_redis, session) == {
        "expiry": expires_at_ms,
        "warning": expires_at_ms - 15 * MINUTE_MS,
        "created": session.created_at_ms,
    }


async def test_a_shorter_timeout_moves_the_expiry_closer(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await store.update_timeout(session.id, {"timeout_minutes": 10})

    assert (await expiry_times_of(real_redis, session))["session"] == session.created_at_ms + 10 * MINUTE_MS


async def test_a_shorter_maximum_duration_becomes_the_reason(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    expected = await store.update_timeout(session.id, {"max_duration_minutes": 20})

    assert expected.expires_at_ms == session.created_at_ms + 20 * MINUTE_MS
    assert (await tombstone_of(real_redis, session))["reason"] == "max_duration"


async def test_a_longer_maximum_duration_is_no_longer_the_reason(store: SessionStore, real_redis: Redis) -> None:
    session = await create_session(store, config=TimeoutConfig(60, True, 60, 5)._asdict())

    await store.update_timeout(session.id, {"max_duration_minutes": 120})

    assert (await tombstone_of(real_redis, session))["reason"] == "inactivity"


async def test_a_warning_threshold_moves_only_the_warning(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    expected = await store.update_timeout(session.id, {"warning_threshold_minutes": 30})

    assert expected.expires_at_ms == session.expires_at_ms
    assert expected.is_near_expiration
    assert (await scores_of(real_redis, session))["warning"] == session.created_at_ms


async def test_a_change_that_would_have_expired_the_session_is_rejected(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 20 * MINUTE_MS)

    with pytest.raises(InvalidTimeoutConfig) as caught:
        await store.update_timeout(session.id, {"timeout_minutes": 15})

    assert caught.value.facts == {
        "sessionId": session.id,
        "expiresAt": iso(session.created_at_ms - 20 * MINUTE_MS + 15 * MINUTE_MS),
    }


async def test_a_change_that_would_expire_the_session_now_is_rejected(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 20 * MINUTE_MS)

    assert await attempt(store.update_timeout, session.id, {"timeout_minutes": 20}) == "in_the_past"


async def test_a_maximum_duration_in_the_past_is_rejected(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 20 * MINUTE_MS)

    assert await attempt(store.update_timeout, session.id, {"max_duration_minutes": 15}) == "in_the_past"


async def test_a_rejected_change_changes_nothing(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await age(real_redis, session.id, 20 * MINUTE_MS)
    before = await contents(real_redis)

    outcome = await attempt(store.update_timeout, session.id, {"timeout_minutes": 15, "auto_renew": False})

    assert outcome == "in_the_past"
    assert await contents(real_redis) == before


async def test_twenty_concurrent_changes_make_twenty_revisions(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    minutes = range(31, 51)

    await asyncio.gather(*(store.update_timeout(session.id, {"timeout_minutes": each}) for each in minutes))

    assert (await fields_of(real_redis, session))["revision"] == "21"


async def test_concurrent_changes_of_different_members_are_all_kept(store: SessionStore, session: Session) -> None:
    await asyncio.gather(
        store.update_timeout(session.id, {"timeout_minutes": 60}),
        store.update_timeout(session.id, {"auto_renew": False}),
        store.update_timeout(session.id, {"max_duration_minutes": 600}),
        store.update_timeout(session.id, {"warning_threshold_minutes": 10}),
    )

    assert (await store.get(session.id)).timeout == TimeoutConfig(60, False, 600, 10)


async def test_a_change_among_renewals_keeps_all_renewals(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    renewals = [store.renew(session.id) for _ in range(10)]
    changes = [store.update_timeout(session.id, {"timeout_minutes": 60}) for _ in range(10)]

    await asyncio.gather(*(call for pair in zip(renewals, changes, strict=True) for call in pair))

    fields = await fields_of(real_redis, session)
    assert (fields["renewalCount"], fields["revision"]) == ("10", "11")
    assert int(fields["expiresAt"]) == int(fields["renewedAt"]) + 60 * MINUTE_MS


async def test_none_of_twenty_changes_that_would_expire_the_session_succeeds(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 20 * MINUTE_MS)

    outcomes = await asyncio.gather(
        *(attempt(store.update_timeout, session.id, {"timeout_minutes": 15}) for _ in range(20))
    )

    assert Counter(outcomes) == {"in_the_past": 20}
    assert (await fields_of(real_redis, session))["revision"] == "1"
