"""The sweeper and the reconciler skip records that a manual change has damaged."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from service.maintenance.sweeper import Sweeper
from service.observability.metrics import Metrics
from service.sessions.session import Session
from service.sessions.store import SessionStore
from tests.aging import age
from tests.conftest import create_session, new_session_events, redis_client_for
from tests.maintenance.reconcilers import entries_of, new_reconciler
from tests.redis_contents import KEYS

MINUTE_MS = 60_000
Damage = Callable[[Redis, Session], Awaitable[Any]]


async def no_expiry_in_tombstone(redis: Redis, session: Session) -> None:
    await redis.hdel(KEYS.tombstone(session.id), "expiresAt")


async def no_number_in_tombstone(redis: Redis, session: Session) -> None:
    await redis.hset(KEYS.tombstone(session.id), "expiresAt", "abc")


async def tombstone_of_wrong_type(redis: Redis, session: Session) -> None:
    await redis.set(KEYS.tombstone(session.id), "a string", px=MINUTE_MS)


async def session_of_wrong_type(redis: Redis, session: Session) -> None:
    await redis.set(KEYS.session(session.id), "a string", px=MINUTE_MS)


async def no_number_in_session(redis: Redis, session: Session) -> None:
    await redis.hset(KEYS.session(session.id), "expiresAt", "abc")
    await redis.pexpire(KEYS.session(session.id), MINUTE_MS)


async def no_creation_time(redis: Redis, session: Session) -> None:
    await redis.hset(KEYS.session(session.id), "createdAt", "")


async def owners_are_not_text(redis: Redis, session: Session) -> None:
    for key in (KEYS.session(session.id), KEYS.tombstone(session.id)):
        await redis.hset(key, "agentId", "a\0b")
        await redis.hset(key, items=["userId", b"\xff"])


async def member_is_not_text(redis: Redis, session: Session) -> None:
    indexes = KEYS.of(session.id)[2:5]
    for index in indexes:
        await redis.zadd(index, {b"\xff\xfe": 1})


DAMAGES: list[Damage] = [
    no_expiry_in_tombstone,
    no_number_in_tombstone,
    tombstone_of_wrong_type,
    session_of_wrong_type,
    no_number_in_session,
    owners_are_not_text,
    member_is_not_text,
]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_record_is_swept_and_so_are_others(
    store: SessionStore, real_redis: Redis, metrics: Metrics, damage: Damage
) -> None:
    damaged, other = await create_session(store), await create_session(store)
    for session in (damaged, other):
        await age(real_redis, session.id, 31 * MINUTE_MS)
    await damage(real_redis, damaged)
    events = new_session_events(metrics)

    await Sweeper(redis_client_for(real_redis), KEYS, events, metrics, retention_ms=MINUTE_MS).sweep()

    for session in (damaged, other):
        assert await real_redis.zcard(KEYS.expiry(session.id[:2])) == 0


@pytest.mark.parametrize("damage", [*DAMAGES, no_creation_time])
async def test_owner_indexes_are_repaired_although_a_record_of_the_shard_is_damaged(
    store: SessionStore, real_redis: Redis, metrics: Metrics, monkeypatch: pytest.MonkeyPatch, damage: Damage
) -> None:
    monkeypatch.setattr("service.sessions.creation.new_session_id", same_shard())
    damaged, other = await create_session(store), await create_session(store)
    await damage(real_redis, damaged)
    await real_redis.delete(KEYS.user(other.user_id))
    reconciler = new_reconciler(real_redis, metrics)

    for _ in range(256):
        await reconciler.reconcile_next_shard()

    assert other.id in await entries_of(real_redis, KEYS.user(other.user_id))


def same_shard() -> Callable[[str], str]:
    ids = iter(f"ab90c3cc-0d44-4b50-8888-8dd25736052{digit}" for digit in "ab")
    return lambda _: next(ids)
