"""Counting: a shard in one moment, by the clock of its own server, and what is near exactly."""

import asyncio

import pytest
from redis.asyncio import Redis

from service.maintenance.sweeper import Sweeper
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient, Reply
from service.redis_client.errors import ScriptError, UnexpectedReply
from service.redis_client.scripts import Command
from service.sessions.counts import SessionCounts, ShardCount
from service.sessions.keys import SHARDS, Keys
from service.sessions.scripts import COUNT
from service.sessions.session import Session
from service.sessions.store import SessionStore
from service.settings.redis_url import Kind
from tests.aging import age
from tests.conftest import create_session, events_into
from tests.sessions.evidence import KEYS, commands_seen, forget_commands

MINUTE_MS = 60_000
SCRIPTS: dict[Kind, int] = {"server": 8, "cluster": 256}
"""How many count all shards: those of a cluster may each lie elsewhere."""


@pytest.fixture
def session_counts(redis_client: RedisClient) -> SessionCounts:
    return SessionCounts(redis_client, Keys(""))


async def create(store: SessionStore, number: int) -> list[Session]:
    return await asyncio.gather(*(create_session(store) for _ in range(number)))


async def aged(redis: Redis, sessions: list[Session], minutes: int) -> None:
    await asyncio.gather(*(age(redis, session.id, minutes * MINUTE_MS) for session in sessions))


async def test_where_there_is_nothing_nothing_is_counted(session_counts: SessionCounts) -> None:
    counted, near = await session_counts.count_with_near_expiration()

    assert (counted.overall, near) == (ShardCount(0, 0), 0)


async def test_those_that_live_are_near_or_not_and_those_that_have_ended_are_apart(
    session_counts: SessionCounts, store: SessionStore, real_redis: Redis
) -> None:
    await create(store, 40)
    await aged(real_redis, await create(store, 30), 26)
    await aged(real_redis, await create(store, 20), 31)

    counted, near = await session_counts.count_with_near_expiration()

    assert counted.overall == ShardCount(active=70, expired=20)
    assert counted.overall.total == 90
    assert near == 30
    assert (await session_counts.count()).overall == counted.overall


async def test_each_shard_has_a_tally_and_an_instant_of_its_own(
    session_counts: SessionCounts, session: Session, real_redis: Redis
) -> None:
    counted = await session_counts.count()

    assert {shard for shard, tally in counted.shards.items() if tally.active} == {session.id[:2]}
    assert tuple(counted.shards) == tuple(counted.at_ms) == SHARDS
    assert session.created_at_ms <= min(counted.at_ms.values())


async def test_shards_that_lie_together_are_counted_together_and_all_in_one_ask(
    session_counts: SessionCounts,
    redis_client: RedisClient,
    kind: Kind,
    real_redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ask, asked = type(redis_client).query, list[tuple[Command, ...]]()

    async def listening(redis_client: RedisClient, *commands: Command) -> list[Reply]:
        asked.append(commands)
        return await ask(redis_client, *commands)

    monkeypatch.setattr(type(redis_client), "query", listening)
    await session_counts.count()

    (commands,) = asked
    assert [command[1] for command in commands] == [COUNT.sha] * SCRIPTS[kind]
    assert [len(command) for command in commands] == [512 // SCRIPTS[kind] + 4] * SCRIPTS[kind]


async def test_counting_asks_for_nothing_that_grows_with_the_sessions(
    session_counts: SessionCounts, store: SessionStore, kind: Kind, real_redis: Redis
) -> None:
    await create(store, 30)
    await session_counts.count()
    await forget_commands(real_redis)

    await session_counts.count()

    seen = await commands_seen(real_redis)
    assert {name: seen[name] for name in ("evalsha", "zcard", "zcount")} == {
        "evalsha": SCRIPTS[kind],
        "zcard": 256,
        "zcount": 256,
    }
    assert seen.keys() <= {"evalsha", "time", "zcard", "zcount", "hello", "auth", "select"}


async def test_a_sweeper_that_comes_between_does_not_tear_a_count(
    session_counts: SessionCounts,
    store: SessionStore,
    redis_client: RedisClient,
    beside: RedisClient,
    real_redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await create(store, 20)
    await aged(real_redis, await create(store, 10), 26)
    await aged(real_redis, await create(store, 30), 31)
    metrics, ask = Metrics(), redis_client.query
    sweeper = Sweeper(beside, KEYS, events_into(metrics), metrics, retention_ms=60 * MINUTE_MS)

    async def then_sweep(*commands: Command) -> list[Reply]:
        replies = await ask(*commands)
        await sweeper.sweep()
        return replies

    monkeypatch.setattr(redis_client, "query", then_sweep)

    before, near = await session_counts.count_with_near_expiration()
    after, near_after = await session_counts.count_with_near_expiration()

    assert (before.overall, near) == (ShardCount(active=30, expired=30), 10)
    assert (after.overall, near_after) == (ShardCount(active=30, expired=0), 10)


async def test_the_longest_unswept_is_found(
    session_counts: SessionCounts, store: SessionStore, real_redis: Redis
) -> None:
    older, younger, _ = await create(store, 3)
    await aged(real_redis, [older], 40)
    await aged(real_redis, [younger], 31)

    oldest_end_ms = await session_counts.oldest_expiry_ms(await session_counts.count())

    assert oldest_end_ms == older.expires_at_ms - 40 * MINUTE_MS


async def test_an_index_that_is_none_is_a_fault(session_counts: SessionCounts, real_redis: Redis) -> None:
    await real_redis.set(KEYS.warning("ab"), "no index", px=MINUTE_MS)

    with pytest.raises(ScriptError):
        await session_counts.count_with_near_expiration()


async def test_an_answer_in_another_word_is_said_aloud(
    session_counts: SessionCounts, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask(redis_client: RedisClient, *commands: Command) -> list[Reply]:
        return [[b"word", 1, 0, 0, 0] for _ in commands]

    monkeypatch.setattr(type(redis_client), "query", ask)

    with pytest.raises(UnexpectedReply):
        await session_counts.count()
