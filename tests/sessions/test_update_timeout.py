"""Changing the timeout configuration of a live session: members merge over its own, its end is counted anew."""

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
from tests.sessions.evidence import contents, ends_of, fields_of, scores_of, tombstone_of

MINUTE_MS = 60_000
RETENTION_MS = 1440 * MINUTE_MS


@pytest.fixture
async def particular(store: SessionStore) -> Session:
    """A session of which every member of the configuration differs from the defaults."""
    return await create_session(store, config=TimeoutConfig(60, False, 120, 10)._asdict())


@pytest.mark.parametrize(
    ("changes", "configured"),
    [
        ({"timeout_minutes": 90}, TimeoutConfig(90, False, 120, 10)),
        ({"auto_renew": True}, TimeoutConfig(60, True, 120, 10)),
        ({"max_duration_minutes": 240}, TimeoutConfig(60, False, 240, 10)),
        ({"warning_threshold_minutes": 20}, TimeoutConfig(60, False, 120, 20)),
        ({"timeout_minutes": 7.5, "warning_threshold_minutes": 0.5}, TimeoutConfig(7.5, False, 120, 0.5)),
        ({}, TimeoutConfig(60, False, 120, 10)),
    ],
)
async def test_members_merge_over_the_configuration_of_the_session(
    store: SessionStore, particular: Session, changes: dict[str, float | bool], configured: TimeoutConfig
) -> None:
    replies_or_none = await store.update_timeout(particular.id, changes)

    assert replies_or_none.timeout == configured
    assert (await store.get(particular.id)).timeout == configured


async def test_changes_add_up(store: SessionStore, particular: Session) -> None:
    await store.update_timeout(particular.id, {"timeout_minutes": 90})
    await store.update_timeout(particular.id, {"auto_renew": True})

    assert (await store.get(particular.id)).timeout == TimeoutConfig(90, True, 120, 10)


async def test_the_end_is_counted_from_the_creation_where_there_was_no_renewal(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 10 * MINUTE_MS)

    configured = await store.update_timeout(session.id, {"timeout_minutes": 60})

    assert configured.expires_at_ms == configured.created_at_ms + 60 * MINUTE_MS


async def test_the_end_is_counted_from_the_last_renewal(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 10 * MINUTE_MS)
    renewed = await store.renew(session.id)

    configured = await store.update_timeout(session.id, {"timeout_minutes": 60})

    assert configured.expires_at_ms == renewed.read_at_ms + 60 * MINUTE_MS


async def test_the_end_is_not_counted_from_an_activity_that_renewed_nothing(
    store: SessionStore, particular: Session, real_redis: Redis
) -> None:
    await age(real_redis, particular.id, 10 * MINUTE_MS)
    await store.heartbeat(particular.id)

    configured = await store.update_timeout(particular.id, {"timeout_minutes": 90})

    assert configured.expires_at_ms == configured.created_at_ms + 90 * MINUTE_MS


async def test_it_is_no_activity_and_no_renewal(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await age(real_redis, session.id, 10 * MINUTE_MS)

    configured = await store.update_timeout(session.id, {"timeout_minutes": 60})

    assert configured.last_activity_ms == session.last_activity_ms - 10 * MINUTE_MS
    assert configured.renewal_count == 0


async def test_it_is_a_revision(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await store.update_timeout(session.id, {"timeout_minutes": 60})
    await store.update_timeout(session.id, {"timeout_minutes": 90})

    assert (await fields_of(real_redis, session))["revision"] == "3"


async def test_it_moves_the_end_in_hash_tombstone_and_indexes(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    configured = await store.update_timeout(session.id, {"timeout_minutes": 60, "warning_threshold_minutes": 15})

    ends_at_ms = session.created_at_ms + 60 * MINUTE_MS
    assert configured.expires_at_ms == ends_at_ms
    assert await ends_of(real_redis, session) == {"session": ends_at_ms, "tombstone": ends_at_ms + RETENTION_MS}
    assert (await tombstone_of(real_redis, session))["expiresAt"] == str(ends_at_ms)
    assert await scores_of(real_redis, session) == {
        "expiry": ends_at_ms,
        "warning": ends_at_ms - 15 * MINUTE_MS,
        "created": session.created_at_ms,
    }


async def test_a_shorter_timeout_brings_the_end_nearer(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await store.update_timeout(session.id, {"timeout_minutes": 10})

    assert (await ends_of(real_redis, session))["session"] == session.created_at_ms + 10 * MINUTE_MS


async def test_a_shorter_maximum_duration_becomes_the_reason_to_end(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    configured = await store.update_timeout(session.id, {"max_duration_minutes": 20})

    assert configured.expires_at_ms == session.created_at_ms + 20 * MINUTE_MS
    assert (await tombstone_of(real_redis, session))["reason"] == "max_duration"


async def test_a_longer_maximum_duration_is_no_reason_to_end_any_more(store: SessionStore, real_redis: Redis) -> None:
    session = await create_session(store, config=TimeoutConfig(60, True, 60, 5)._asdict())

    await store.update_timeout(session.id, {"max_duration_minutes": 120})

    assert (await tombstone_of(real_redis, session))["reason"] == "inactivity"


async def test_the_warning_threshold_moves_the_warning_only(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    configured = await store.update_timeout(session.id, {"warning_threshold_minutes": 30})

    assert configured.expires_at_ms == session.expires_at_ms
    assert configured.is_near_expiration
    assert (await scores_of(real_redis, session))["warning"] == session.created_at_ms


async def test_a_change_that_would_have_ended_it_is_refused(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 20 * MINUTE_MS)

    with pytest.raises(InvalidTimeoutConfig) as refusal:
        await store.update_timeout(session.id, {"timeout_minutes": 15})

    assert refusal.value.facts == {
        "sessionId": session.id,
        "expiresAt": iso(session.created_at_ms - 20 * MINUTE_MS + 15 * MINUTE_MS),
    }


async def test_a_change_that_would_end_it_at_this_moment_is_refused(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 20 * MINUTE_MS)

    assert await attempt(store.update_timeout, session.id, {"timeout_minutes": 20}) == "in_the_past"


async def test_a_maximum_duration_in_the_past_is_refused(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 20 * MINUTE_MS)

    assert await attempt(store.update_timeout, session.id, {"max_duration_minutes": 15}) == "in_the_past"


async def test_a_refused_change_changes_nothing(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await age(real_redis, session.id, 20 * MINUTE_MS)
    before = await contents(real_redis)

    answer = await attempt(store.update_timeout, session.id, {"timeout_minutes": 15, "auto_renew": False})

    assert answer == "in_the_past"
    assert await contents(real_redis) == before


async def test_twenty_changes_at_once_are_twenty_revisions(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    minutes = range(31, 51)

    await asyncio.gather(*(store.update_timeout(session.id, {"timeout_minutes": each}) for each in minutes))

    assert (await fields_of(real_redis, session))["revision"] == "21"


async def test_changes_of_different_members_at_once_are_all_kept(store: SessionStore, session: Session) -> None:
    await asyncio.gather(
        store.update_timeout(session.id, {"timeout_minutes": 60}),
        store.update_timeout(session.id, {"auto_renew": False}),
        store.update_timeout(session.id, {"max_duration_minutes": 600}),
        store.update_timeout(session.id, {"warning_threshold_minutes": 10}),
    )

    assert (await store.get(session.id)).timeout == TimeoutConfig(60, False, 600, 10)


async def test_a_change_among_renewals_loses_none_of_them(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    renewals = [store.renew(session.id) for _ in range(10)]
    changes = [store.update_timeout(session.id, {"timeout_minutes": 60}) for _ in range(10)]

    await asyncio.gather(*(call for pair in zip(renewals, changes, strict=True) for call in pair))

    fields = await fields_of(real_redis, session)
    assert (fields["renewalCount"], fields["revision"]) == ("10", "11")
    assert int(fields["expiresAt"]) == int(fields["renewedAt"]) + 60 * MINUTE_MS


async def test_of_twenty_changes_past_the_end_none_is_made(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 20 * MINUTE_MS)

    answers = await asyncio.gather(
        *(attempt(store.update_timeout, session.id, {"timeout_minutes": 15}) for _ in range(20))
    )

    assert Counter(answers) == {"in_the_past": 20}
    assert (await fields_of(real_redis, session))["revision"] == "1"
