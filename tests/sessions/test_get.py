"""Reading a session: it is told as it stands, and nothing moves."""

from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from service.redis_client.client import Fields, RedisClient
from service.sessions.session import Session, TimeoutConfig
from service.sessions.store import SessionStore
from tests.aging import age
from tests.attempt import attempt
from tests.conftest import AGENT, USER
from tests.sessions.evidence import KEYS, commands_seen, contents

MINUTE_MS = 60_000


def read_at(now_ms: int, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every reading be judged at this instant."""
    read = redis_client.read_hash

    async def read_then(key: str, fields: Fields) -> tuple[Sequence[bytes | None], int]:
        values, _ = await read(key, fields)
        return values, now_ms

    monkeypatch.setattr(redis_client, "read_hash", read_then)


async def test_a_session_is_read_as_it_was_created(store: SessionStore, session: Session) -> None:
    found = await store.get(session.id)

    assert found == session._replace(seen_at_ms=found.seen_at_ms)


async def test_it_is_judged_at_the_instant_of_the_reading(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    found = await store.get(session.id)

    seconds, microseconds = await real_redis.time()
    assert session.seen_at_ms <= found.seen_at_ms <= seconds * 1000 + microseconds // 1000


async def test_its_time_remaining_shrinks(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await age(real_redis, session.id, 10 * MINUTE_MS)

    found = await store.get(session.id)

    assert found.time_remaining_ms <= 20 * MINUTE_MS
    assert found.expires_at_ms == session.expires_at_ms - 10 * MINUTE_MS


async def test_within_its_warning_threshold_it_is_near_its_expiration(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 25 * MINUTE_MS)

    assert (await store.get(session.id)).is_near_expiration


async def test_before_its_warning_threshold_it_is_not_near_its_expiration(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 24 * MINUTE_MS)

    assert not (await store.get(session.id)).is_near_expiration


async def test_reading_moves_and_writes_nothing(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await age(real_redis, session.id, 29 * MINUTE_MS)
    before = await contents(real_redis)

    await store.get(session.id)

    assert await contents(real_redis) == before


async def test_reading_of_an_end_writes_nothing_either(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)
    before = await contents(real_redis)

    assert await attempt(store.get, session.id) == "expired"

    assert await contents(real_redis) == before


async def test_a_reading_is_one_look_at_the_hash_and_one_at_the_clock(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    before = await commands_seen(real_redis)

    await store.get(session.id)

    assert await commands_seen(real_redis) - before == {"hmget": 1, "time": 1}


async def test_the_tombstone_is_looked_at_when_there_is_no_hash(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)
    before = await commands_seen(real_redis)

    assert await attempt(store.get, session.id) == "expired"

    assert await commands_seen(real_redis) - before == {"hmget": 2, "time": 2}


async def test_in_its_last_millisecond_it_lives(
    store: SessionStore, session: Session, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_at(session.expires_at_ms - 1, redis_client, monkeypatch)

    assert (await store.get(session.id)).time_remaining_ms == 1


async def test_at_the_instant_of_its_end_it_is_expired(
    store: SessionStore, session: Session, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_at(session.expires_at_ms, redis_client, monkeypatch)

    assert await attempt(store.get, session.id) == "expired"


async def test_a_hash_that_is_gone_more_than_five_seconds_early_was_lost(
    store: SessionStore, session: Session, redis_client: RedisClient, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await real_redis.delete(KEYS.session(session.id))
    read_at(session.expires_at_ms - 5001, redis_client, monkeypatch)

    assert await attempt(store.get, session.id) == "missing"


async def test_a_hash_that_is_gone_five_seconds_early_has_expired(
    store: SessionStore, session: Session, redis_client: RedisClient, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await real_redis.delete(KEYS.session(session.id))
    read_at(session.expires_at_ms - 5000, redis_client, monkeypatch)

    assert await attempt(store.get, session.id) == "expired"


async def test_fractions_of_minutes_are_read_as_they_were_given(store: SessionStore) -> None:
    session = await store.create(AGENT, USER, TimeoutConfig(0.5, True, 1.25, 0.25)._asdict(), b"{}")

    found = await store.get(session.id)

    assert found.timeout == TimeoutConfig(0.5, True, 1.25, 0.25)
    assert found.expires_at_ms - found.created_at_ms == 30_000


async def test_a_renewal_between_the_two_looks_is_not_taken_for_a_loss(
    store: SessionStore, session: Session, redis_client: RedisClient, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = redis_client.read_hash
    looks = iter([session.expires_at_ms, session.expires_at_ms])

    async def read_late_at_first(key: str, fields: Fields) -> tuple[Sequence[bytes | None], int]:
        values, now_ms = await read(key, fields)
        return values, next(looks, now_ms) if not key.endswith("tombstone") else now_ms

    monkeypatch.setattr(redis_client, "read_hash", read_late_at_first)
    next(looks)

    assert await attempt(store.get, session.id) == "live"
