"""Counting sessions, shard by shard."""

import asyncio

import pytest
from redis.asyncio import Redis

from service.maintenance.sweeper import Sweeper
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient, Reply
from service.redis_client.errors import UnexpectedReply
from service.redis_client.scripts import Command
from service.sessions.counts import SessionCounts, ShardCount
from service.sessions.keys import SHARDS, Keys
from service.sessions.scripts import COUNT
from service.sessions.session import Session
from service.sessions.store import SessionStore
from tests.aging import age
from tests.conftest import create_session, new_session_events
from tests.redis_contents import KEYS, command_counts, reset_command_counts

MINUTE_MS = 60_000
SCRIPT_CALLS = 8


@pytest.fixture
def session_counts(redis_client: RedisClient) -> SessionCounts:
    return SessionCounts(redis_client, Keys(""))


async def create(store: SessionStore, number: int) -> list[Session]:
    return await asyncio.gather(*(create_session(store) for _ in range(number)))


async def age_all(redis: Redis, sessions: list[Session], minutes: int) -> None:
    await asyncio.gather(*(age(redis, session.id, minutes * MINUTE_MS) for session in sessions))


async def test_an_empty_store_has_no_sessions(session_counts: SessionCounts) -> None:
    counts, near = await session_counts.count_with_near_expiration()

    assert (counts.overall, near) == (ShardCount(0, 0), 0)


async def test_live_and_expired_sessions_and_those_near_expiration_are_counted(
    session_counts: SessionCounts, store: SessionStore, real_redis: Redis
) -> None:
    await create(store, 40)
    await age_all(real_redis, await create(store, 30), 26)
    await age_all(real_redis, await create(store, 20), 31)

    counts, near = await session_counts.count_with_near_expiration()

    assert counts.overall == ShardCount(active=70, expired=20)
    assert counts.overall.total == 90
    assert near == 30
    assert (await session_counts.count()).overall == counts.overall


async def test_each_shard_has_a_count_and_a_time(
    session_counts: SessionCounts, session: Session, real_redis: Redis
) -> None:
    counts = await session_counts.count()

    assert {shard for shard, count in counts.shards.items() if count.active} == {session.id[:2]}
    assert tuple(counts.shards) == tuple(counts.at_ms) == SHARDS
    assert session.created_at_ms <= min(counts.at_ms.values())


async def test_all_shards_are_counted_in_one_round_trip(
    session_counts: SessionCounts,
    redis_client: RedisClient,
    real_redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    query, batches = type(redis_client).query, list[tuple[Command, ...]]()

    async def recording(redis_client: RedisClient, *commands: Command) -> list[Reply]:
        batches.append(commands)
        return await query(redis_client, *commands)

    monkeypatch.setattr(type(redis_client), "query", recording)
    await session_counts.count()

    (commands,) = batches
    assert [command[1] for command in commands] == [COUNT.sha] * SCRIPT_CALLS
    assert [len(command) for command in commands] == [512 // SCRIPT_CALLS + 4] * SCRIPT_CALLS


async def test_the_number_of_commands_does_not_grow_with_the_sessions(
    session_counts: SessionCounts, store: SessionStore, real_redis: Redis
) -> None:
    await create(store, 30)
    await session_counts.count()
    await reset_command_counts(real_redis)

    await session_counts.count()

    seen = await command_counts(real_redis)
    assert {name: seen[name] for name in ("evalsha", "zcard", "zcount")} == {
        "evalsha": SCRIPT_CALLS,
        "zcard": 256,
        "zcount": 256,
    }
    assert seen.keys() <= {"evalsha", "time", "zcard", "zcount", "hello", "auth", "select"}


async def test_a_count_is_consistent_while_the_sweeper_runs(
    session_counts: SessionCounts,
    store: SessionStore,
    redis_client: RedisClient,
    second_redis_client: RedisClient,
    real_redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await create(store, 20)
    await age_all(real_redis, await create(store, 10), 26)
    await age_all(real_redis, await create(store, 30), 31)
    metrics, query = Metrics(), redis_client.query
    sweeper = Sweeper(second_redis_client, KEYS, new_session_events(metrics), metrics, retention_ms=60 * MINUTE_MS)

    async def query_then_sweep(*commands: Command) -> list[Reply]:
        replies = await query(*commands)
        await sweeper.sweep()
        return replies

    monkeypatch.setattr(redis_client, "query", query_then_sweep)

    before, near = await session_counts.count_with_near_expiration()
    after, near_after = await session_counts.count_with_near_expiration()

    assert (before.overall, near) == (ShardCount(active=30, expired=30), 10)
    assert (after.overall, near_after) == (ShardCount(active=30, expired=0), 10)


async def test_the_oldest_expiry_of_unswept_sessions_is_found(
    session_counts: SessionCounts, store: SessionStore, real_redis: Redis
) -> None:
    older, younger, _ = await create(store, 3)
    await age_all(real_redis, [older], 40)
    await age_all(real_redis, [younger], 31)

    oldest_expiry_ms = await session_counts.oldest_expiry_ms(await session_counts.count())

    assert oldest_expiry_ms == older.expires_at_ms - 40 * MINUTE_MS


async def test_an_index_of_the_wrong_type_counts_as_empty(session_counts: SessionCounts, real_redis: Redis) -> None:
    await real_redis.set(KEYS.warning("ab"), "not an index", px=MINUTE_MS)

    assert (await session_counts.count_with_near_expiration())[1] == 0


async def test_an_unknown_status_raises_unexpected_reply(
    session_counts: SessionCounts, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def query(redis_client: RedisClient, *commands: Command) -> list[Reply]:
        return [[b"word", 1, 0, 0, 0] for _ in commands]

    monkeypatch.setattr(type(redis_client), "query", query)

    with pytest.raises(UnexpectedReply):
        await session_counts.count()
