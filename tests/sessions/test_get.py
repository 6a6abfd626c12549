"""Reading a session changes nothing."""

from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from service.redis_client.client import Fields, RedisClient
from service.sessions.session import Session
from service.sessions.store import SessionStore
from service.settings.sessions import TimeoutConfig
from tests.aging import age
from tests.attempt import attempt
from tests.conftest import AGENT, USER, create_session
from tests.redis_contents import command_counts, contents

MINUTE_MS = 60_000


def read_at(now_ms: int, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every read return this time of the server."""
    read = redis_client.read_hash

    async def read_then(key: str, fields: Fields) -> tuple[Sequence[bytes | None], int]:
        values, _ = await read(key, fields)
        return values, now_ms

    monkeypatch.setattr(redis_client, "read_hash", read_then)


async def test_a_session_is_read_as_it_was_created(store: SessionStore, session: Session) -> None:
    found = await store.get(session.id)

    assert found == session._replace(read_at_ms=found.read_at_ms)


async def test_a_read_returns_the_time_of_the_server(store: SessionStore, session: Session, real_redis: Redis) -> None:
    found = await store.get(session.id)

    seconds, microseconds = await real_redis.time()
    assert session.read_at_ms <= found.read_at_ms <= seconds * 1000 + microseconds // 1000


async def test_the_remaining_time_decreases(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await age(real_redis, session.id, 10 * MINUTE_MS)

    found = await store.get(session.id)

    assert found.time_remaining_ms <= 20 * MINUTE_MS
    assert found.expires_at_ms == session.expires_at_ms - 10 * MINUTE_MS


async def test_a_session_within_its_warning_threshold_is_near_expiration(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 25 * MINUTE_MS)

    assert (await store.get(session.id)).is_near_expiration


async def test_a_session_before_its_warning_threshold_is_not_near_expiration(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 24 * MINUTE_MS)

    assert not (await store.get(session.id)).is_near_expiration


async def test_reading_a_live_session_writes_nothing(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await age(real_redis, session.id, 29 * MINUTE_MS)
    before = await contents(real_redis)

    await store.get(session.id)

    assert await contents(real_redis) == before


async def test_reading_an_expired_session_writes_nothing(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)
    before = await contents(real_redis)

    assert await attempt(store.get, session.id) == "expired"

    assert await contents(real_redis) == before


async def test_a_read_takes_one_hmget_and_one_time_command(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    before = await command_counts(real_redis)

    await store.get(session.id)

    assert await command_counts(real_redis) - before == {"hmget": 1, "time": 1}


async def test_a_script_reads_the_tombstone_of_an_expired_session(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)
    before = await command_counts(real_redis)

    assert await attempt(store.get, session.id) == "expired"

    assert (await command_counts(real_redis) - before)["evalsha"] == 1


async def test_a_session_is_live_in_its_last_millisecond(
    store: SessionStore, session: Session, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_at(session.expires_at_ms - 1, redis_client, monkeypatch)

    assert (await store.get(session.id)).time_remaining_ms == 1


async def test_fractions_of_minutes_are_read_as_they_were_written(store: SessionStore) -> None:
    session = await create_session(store, config=TimeoutConfig(0.5, True, 1.25, 0.25)._asdict())

    found = await store.get(session.id)

    assert found.timeout == TimeoutConfig(0.5, True, 1.25, 0.25)
    assert found.expires_at_ms - found.created_at_ms == 30_000


async def test_a_renewal_after_the_first_read_keeps_the_session_live(
    store: SessionStore, session: Session, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_at(session.expires_at_ms, redis_client, monkeypatch)

    assert await attempt(store.get, session.id) == "live"


async def test_the_owner_reads_with_one_command(store: SessionStore, session: Session, real_redis: Redis) -> None:
    before = await command_counts(real_redis)

    assert await attempt(store.get, session.id, USER) == "live"

    assert await command_counts(real_redis) - before == {"hmget": 1, "time": 1}


async def test_a_session_of_another_user_is_missing(store: SessionStore, session: Session) -> None:
    assert await attempt(store.get, session.id, AGENT) == "missing"


async def test_an_expired_session_is_reported_to_its_owner_only(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)

    assert await attempt(store.get, session.id, USER) == "expired"
    assert await attempt(store.get, session.id, AGENT) == "missing"
