"""Counting: a shard in one moment, by the clock of its own server, and what is near exactly."""

import asyncio

import pytest
from redis.asyncio import Redis

from service.keeping.sweeper import Sweeper
from service.lanes.lane import Lane, Reply, ScriptFault, UnknownAnswer
from service.lanes.redis_url import Kind
from service.life.keys import SHARDS, Keys
from service.life.scripts import COUNT, Command
from service.life.sessions import Session
from service.life.store import Store
from service.listing.census import Census, Tally
from service.telemetry.metrics import Metrics
from tests.aging import age
from tests.conftest import AGENT, USER, lifecycle_into
from tests.store.evidence import KEYS, commands_seen, forget_commands

MINUTE_MS = 60_000
SCRIPTS: dict[Kind, int] = {"server": 8, "cluster": 256}
"""How many count all shards: those of a cluster may each lie elsewhere."""


@pytest.fixture
def census(lane: Lane) -> Census:
    return Census(lane, Keys(""))


async def create(store: Store, number: int) -> list[Session]:
    return await asyncio.gather(*(store.create(AGENT, USER, {}, b"{}") for _ in range(number)))


async def aged(redis: Redis, sessions: list[Session], minutes: int) -> None:
    await asyncio.gather(*(age(redis, session.id, minutes * MINUTE_MS) for session in sessions))


async def test_where_there_is_nothing_nothing_is_counted(census: Census) -> None:
    counted, near = await census.take_with_near()

    assert (counted.total, near) == (Tally(0, 0), 0)


async def test_those_that_live_are_near_or_not_and_those_that_have_ended_are_apart(
    census: Census, store: Store, real_redis: Redis
) -> None:
    await create(store, 40)
    await aged(real_redis, await create(store, 30), 26)
    await aged(real_redis, await create(store, 20), 31)

    counted, near = await census.take_with_near()

    assert counted.total == Tally(active=70, ended=20)
    assert counted.total.listed == 90
    assert near == 30
    assert (await census.take()).total == counted.total


async def test_each_shard_has_a_tally_and_an_instant_of_its_own(
    census: Census, session: Session, real_redis: Redis
) -> None:
    counted = await census.take()

    assert {shard for shard, tally in counted.shards.items() if tally.active} == {session.id[:2]}
    assert tuple(counted.shards) == tuple(counted.at_ms) == SHARDS
    assert session.created_at_ms <= min(counted.at_ms.values())


async def test_shards_that_lie_together_are_counted_together_and_all_in_one_ask(
    census: Census, lane: Lane, kind: Kind, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, asked = type(lane).ask, list[tuple[Command, ...]]()

    async def listening(lane: Lane, *commands: Command) -> list[Reply]:
        asked.append(commands)
        return await ask(lane, *commands)

    monkeypatch.setattr(type(lane), "ask", listening)
    await census.take()

    (commands,) = asked
    assert [command[1] for command in commands] == [COUNT.sha] * SCRIPTS[kind]
    assert [len(command) for command in commands] == [512 // SCRIPTS[kind] + 4] * SCRIPTS[kind]


async def test_counting_asks_for_nothing_that_grows_with_the_sessions(
    census: Census, store: Store, kind: Kind, real_redis: Redis
) -> None:
    await create(store, 30)
    await census.take()
    await forget_commands(real_redis)

    await census.take()

    seen = await commands_seen(real_redis)
    assert {name: seen[name] for name in ("evalsha", "zcard", "zcount")} == {
        "evalsha": SCRIPTS[kind],
        "zcard": 256,
        "zcount": 256,
    }
    assert seen.keys() <= {"evalsha", "time", "zcard", "zcount", "hello", "auth", "select"}


async def test_a_sweeper_that_comes_between_does_not_tear_a_count(
    census: Census, store: Store, lane: Lane, beside: Lane, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(store, 20)
    await aged(real_redis, await create(store, 10), 26)
    await aged(real_redis, await create(store, 30), 31)
    metrics, ask = Metrics(), lane.ask
    sweeper = Sweeper(beside, KEYS, lifecycle_into(metrics), metrics, retention_ms=60 * MINUTE_MS)

    async def then_sweep(*commands: Command) -> list[Reply]:
        replies = await ask(*commands)
        await sweeper.round()
        return replies

    monkeypatch.setattr(lane, "ask", then_sweep)

    before, near = await census.take_with_near()
    after, near_after = await census.take_with_near()

    assert (before.total, near) == (Tally(active=30, ended=30), 10)
    assert (after.total, near_after) == (Tally(active=30, ended=0), 10)


async def test_the_longest_unswept_is_found(census: Census, store: Store, real_redis: Redis) -> None:
    older, younger, _ = await create(store, 3)
    await aged(real_redis, [older], 40)
    await aged(real_redis, [younger], 31)

    oldest_end_ms = await census.oldest_end_ms(await census.take())

    assert oldest_end_ms == older.expires_at_ms - 40 * MINUTE_MS


async def test_an_index_that_is_none_is_a_fault(census: Census, real_redis: Redis) -> None:
    await real_redis.set(KEYS.warning("ab"), "no index", px=MINUTE_MS)

    with pytest.raises(ScriptFault):
        await census.take_with_near()


async def test_an_answer_in_another_word_is_said_aloud(
    census: Census, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask(lane: Lane, *commands: Command) -> list[Reply]:
        return [[b"word", 1, 0, 0, 0] for _ in commands]

    monkeypatch.setattr(type(lane), "ask", ask)

    with pytest.raises(UnknownAnswer):
        await census.take()
