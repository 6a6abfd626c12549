"""Sweeping: what has ended leaves the indexes and lookups, and nothing else does."""

import asyncio

import pytest
from redis.asyncio import Redis

from service.errors import StoreUnavailable
from service.maintenance.sweeper import BATCH_PER_SHARD, Sweeper
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.redis_client.scripts import Command
from service.sessions.keys import Keys
from service.sessions.session import Session
from service.sessions.store import SessionStore
from service.settings.sessions import TimeoutConfig
from tests.aging import age
from tests.attempt import attempt
from tests.conftest import USER, create_session, new_session_events, redis_client_for
from tests.counted import counted, read_from
from tests.redis_contents import KEYS, command_counts, fields_of, reset_command_counts, scores_of, tombstone_of

MINUTE_MS = 60_000
RETENTION_MS = 60 * MINUTE_MS
NOWHERE = {"expiry": None, "warning": None, "created": None}
SHARD, IN_IT = "zz", "zz90c3cc-0d44-4b50-8888-8dd25736052a"
TAMPERINGS: dict[str, list[Command]] = {
    "the index of ends": [("SET", KEYS.expiry(SHARD), "no index", "PX", MINUTE_MS)],
    "another index": [
        ("ZADD", KEYS.expiry(SHARD), 1, IN_IT),
        ("SET", KEYS.created(SHARD), "no index", "PX", MINUTE_MS),
    ],
    "an id": [("ZADD", KEYS.expiry(SHARD), 1, b"\xff")],
    "an instant": [
        ("ZADD", KEYS.expiry(SHARD), 1, IN_IT),
        ("HSET", KEYS.tombstone(IN_IT), "agentId", "a", "userId", "u", "expiresAt", "soon"),
        ("PEXPIRE", KEYS.tombstone(IN_IT), MINUTE_MS),
    ],
}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def sweeper(real_redis: Redis, metrics: Metrics) -> Sweeper:
    return sweeper_on(real_redis, metrics)


@pytest.fixture
async def ended(session: Session, real_redis: Redis) -> Session:
    """A session that ended a minute ago, for want of activity."""
    await age(real_redis, session.id, 31 * MINUTE_MS)
    return session


def sweeper_on(redis: Redis, metrics: Metrics) -> Sweeper:
    redis_client = redis_client_for(redis)
    return Sweeper(redis_client, Keys(""), new_session_events(metrics), metrics, retention_ms=RETENTION_MS)


async def lookups_of(redis: Redis, session: Session) -> list[float | None]:
    keys = (KEYS.user(session.user_id), KEYS.agent(session.agent_id))
    return [await redis.zscore(key, session.id) for key in keys]


async def test_an_ended_session_leaves_its_shard(sweeper: Sweeper, ended: Session, real_redis: Redis) -> None:
    await sweeper.sweep()

    assert await scores_of(real_redis, ended) == NOWHERE


async def test_an_ended_session_leaves_its_lookups(sweeper: Sweeper, ended: Session, real_redis: Redis) -> None:
    await sweeper.sweep()

    assert await lookups_of(real_redis, ended) == [None, None]


async def test_its_tombstone_still_says_410(
    sweeper: Sweeper, ended: Session, store: SessionStore, real_redis: Redis
) -> None:
    before = await tombstone_of(real_redis, ended)
    dies_at_ms = await real_redis.pexpiretime(KEYS.tombstone(ended.id))

    await sweeper.sweep()

    assert await tombstone_of(real_redis, ended) == {name: before[name] for name in ("expiresAt", "reason")}
    assert await real_redis.pexpiretime(KEYS.tombstone(ended.id)) == dies_at_ms
    assert await attempt(store.get, ended.id) == "expired"


async def test_a_tombstone_without_an_end_gets_its_own_again(
    sweeper: Sweeper, ended: Session, real_redis: Redis
) -> None:
    await real_redis.persist(KEYS.tombstone(ended.id))
    await real_redis.zadd(KEYS.expiry(ended.id[:2]), {ended.id: 1})

    await sweeper.sweep()

    ended_at_ms = int((await tombstone_of(real_redis, ended))["expiresAt"])
    assert await real_redis.pexpiretime(KEYS.tombstone(ended.id)) == ended_at_ms + RETENTION_MS


async def test_a_tombstone_without_an_end_goes_at_once_where_its_retention_is_over(
    sweeper: Sweeper, session: Session, real_redis: Redis
) -> None:
    await real_redis.persist(KEYS.tombstone(session.id))
    await age(real_redis, session.id, 91 * MINUTE_MS)
    await real_redis.hincrby(KEYS.tombstone(session.id), "expiresAt", -91 * MINUTE_MS)

    await sweeper.sweep()

    assert await real_redis.exists(KEYS.tombstone(session.id)) == 0


async def test_an_index_that_holds_no_instant_holds_nothing_up(
    sweeper: Sweeper, ended: Session, real_redis: Redis
) -> None:
    await real_redis.zadd(KEYS.expiry(ended.id[:2]), {ended.id: float("-inf")})

    await sweeper.sweep()

    assert await scores_of(real_redis, ended) == NOWHERE


async def test_a_server_that_forgot_the_script_is_sent_its_text_once(sweeper: Sweeper, real_redis: Redis) -> None:
    await sweeper.sweep()
    await real_redis.script_flush()
    await reset_command_counts(real_redis)

    await sweeper.sweep()

    assert (await command_counts(real_redis))["eval"] == 1


async def test_ends_are_counted_by_their_reason(
    sweeper: Sweeper, ended: Session, store: SessionStore, real_redis: Redis, metrics: Metrics
) -> None:
    outlived = await create_session(store, config=TimeoutConfig(30, True, 30, 5)._asdict())
    await age(real_redis, outlived.id, 30 * MINUTE_MS)

    await sweeper.sweep()

    assert counted(metrics.ended) == {"inactivity": 1, "max_duration": 1}


async def test_a_session_that_was_counted_as_lost_is_not_counted_again(
    sweeper: Sweeper, ended: Session, real_redis: Redis, metrics: Metrics
) -> None:
    await real_redis.hset(KEYS.tombstone(ended.id), "lostAt", ended.created_at_ms)

    await sweeper.sweep()

    assert counted(metrics.ended) == {}
    assert sorted(await tombstone_of(real_redis, ended)) == ["expiresAt", "reason"]
    assert await scores_of(real_redis, ended) == NOWHERE


async def test_it_says_how_far_behind_it_is(sweeper: Sweeper, ended: Session, metrics: Metrics) -> None:
    await sweeper.sweep()
    behind_ms, behind_seconds = sweeper.lag_ms, read_from(metrics.sweeper_lag_seconds)
    await sweeper.sweep()

    assert 1 * MINUTE_MS <= behind_ms < 2 * MINUTE_MS
    assert behind_ms / 1000 <= behind_seconds < 2 * MINUTE_MS / 1000
    assert sweeper.lag_ms == 0
    assert read_from(metrics.sweeper_lag_seconds) < 1 * MINUTE_MS / 1000


async def test_one_that_cannot_look_is_further_behind_by_the_moment(sweeper: Sweeper, metrics: Metrics) -> None:
    await sweeper.sweep()

    sweeper.lag_measured_at -= 300

    assert 300 <= (metrics.registry.get_sample_value("sessions_sweeper_lag_seconds") or 0) < 360


async def test_a_living_session_is_left_alone(sweeper: Sweeper, session: Session, real_redis: Redis) -> None:
    before = (await fields_of(real_redis, session), await scores_of(real_redis, session))

    await sweeper.sweep()

    assert (await fields_of(real_redis, session), await scores_of(real_redis, session)) == before
    assert None not in await lookups_of(real_redis, session)


async def test_an_index_that_is_wrong_ends_no_session_and_is_set_right(
    sweeper: Sweeper, session: Session, store: SessionStore, real_redis: Redis
) -> None:
    await real_redis.zadd(KEYS.expiry(session.id[:2]), {session.id: 1})

    await sweeper.sweep()

    assert await attempt(store.get, session.id) == "live"
    assert (await scores_of(real_redis, session))["expiry"] == session.expires_at_ms
    assert None not in await lookups_of(real_redis, session)


async def test_a_hash_kept_past_its_end_goes_and_says_410(
    sweeper: Sweeper, session: Session, store: SessionStore, real_redis: Redis
) -> None:
    await real_redis.persist(KEYS.session(session.id))
    await age(real_redis, session.id, 31 * MINUTE_MS)
    await real_redis.hincrby(KEYS.session(session.id), "expiresAt", -31 * MINUTE_MS)

    await sweeper.sweep()

    assert await real_redis.exists(KEYS.session(session.id)) == 0
    assert await attempt(store.get, session.id) == "expired"


async def test_without_its_tombstone_an_ended_session_still_leaves_its_shard(
    sweeper: Sweeper, ended: Session, real_redis: Redis, metrics: Metrics
) -> None:
    await real_redis.delete(KEYS.tombstone(ended.id))

    await sweeper.sweep()

    assert await scores_of(real_redis, ended) == NOWHERE
    assert counted(metrics.ended) == {"unknown": 1}


async def test_a_sweeper_that_died_on_the_way_leaves_its_work_to_the_next(
    sweeper: Sweeper,
    ended: Session,
    redis_client: RedisClient,
    real_redis: Redis,
    metrics: Metrics,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as dying:
        dying.setattr(sweeper, "_remove", lambda *_: asyncio.sleep(0))
        await sweeper.sweep()
    after_its_death = await scores_of(real_redis, ended)

    await sweeper.sweep()

    assert None not in after_its_death.values()
    assert await scores_of(real_redis, ended) == NOWHERE
    assert counted(metrics.ended) == {"inactivity": 1}


async def test_of_twenty_sweepers_at_once_one_takes_it_out(ended: Session, real_redis: Redis, metrics: Metrics) -> None:
    sweepers = [sweeper_on(real_redis, metrics) for _ in range(20)]

    await asyncio.gather(*(sweeper.sweep() for sweeper in sweepers))

    assert counted(metrics.ended) == {"inactivity": 1}


async def test_more_than_a_batch_is_swept_round_by_round(
    sweeper: Sweeper, store: SessionStore, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = iter(f"ab90c3cc-0d44-4b50-8888-{number:012x}" for number in range(BATCH_PER_SHARD + 1))
    monkeypatch.setattr("service.sessions.creation.new_session_id", lambda *_: next(ids))
    sessions = [await create_session(store) for _ in range(BATCH_PER_SHARD + 1)]
    await asyncio.gather(*(age(real_redis, session.id, 31 * MINUTE_MS) for session in sessions))

    await sweeper.sweep()
    after_one = await real_redis.zcard(KEYS.expiry("ab"))
    await sweeper.sweep()

    assert (after_one, await real_redis.zcard(KEYS.expiry("ab"))) == (1, 0)


async def test_sweepers_among_heartbeats_end_no_session(
    session: Session, store: SessionStore, real_redis: Redis
) -> None:
    await real_redis.zadd(KEYS.expiry(session.id[:2]), {session.id: 1})
    sweepers = [sweeper_on(real_redis, Metrics()) for _ in range(10)]

    answers = await asyncio.gather(
        *(sweeper.sweep() for sweeper in sweepers), *(attempt(store.heartbeat, session.id) for _ in range(20))
    )

    assert answers[10:] == ["live"] * 20
    assert (await scores_of(real_redis, session))["expiry"] == (await store.get(session.id)).expires_at_ms


@pytest.mark.parametrize("tampering", TAMPERINGS.values(), ids=TAMPERINGS)
async def test_a_shard_that_was_tampered_with_holds_up_no_other(
    sweeper: Sweeper,
    ended: Session,
    real_redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tampering: list[Command],
) -> None:
    monkeypatch.setattr("service.maintenance.sweeper.SHARDS", (SHARD, ended.id[:2]))
    await redis_client_for(real_redis).execute(*tampering)

    await sweeper.sweep()

    assert await scores_of(real_redis, ended) == NOWHERE
    assert "a shard cannot be swept" in caplog.text


@pytest.mark.parametrize("tampering", TAMPERINGS.values(), ids=TAMPERINGS)
async def test_a_tampered_shard_is_told_once_an_episode(
    sweeper: Sweeper,
    real_redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tampering: list[Command],
) -> None:
    monkeypatch.setattr("service.maintenance.sweeper.SHARDS", (SHARD,))
    tampered = redis_client_for(real_redis).execute
    await tampered(*tampering)
    await sweeper.sweep()
    await sweeper.sweep()
    told_first = caplog.text.count("a shard cannot be swept")
    await real_redis.flushall()
    await sweeper.sweep()
    await tampered(*tampering)

    await sweeper.sweep()

    assert told_first == 1
    assert caplog.text.count("a shard cannot be swept") == 2


async def test_an_episode_is_over_when_its_shard_is_swept(
    sweeper: Sweeper, real_redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("service.maintenance.sweeper.SHARDS", (SHARD,))
    tampered = redis_client_for(real_redis).execute
    await tampered(*TAMPERINGS["another index"])
    await sweeper.sweep()
    await real_redis.delete(KEYS.created(SHARD))
    await sweeper.sweep()
    await tampered(*TAMPERINGS["another index"])

    await sweeper.sweep()

    assert caplog.text.count("a shard cannot be swept") == 2


@pytest.mark.parametrize("kind", ["server"])
async def test_a_server_that_takes_no_changes_ends_the_round_and_no_id_is_told(
    sweeper: Sweeper, ended: Session, real_redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    await real_redis.config_set("min-replicas-to-write", 1)

    with pytest.raises(StoreUnavailable) as refused:
        await sweeper.sweep()
    await real_redis.config_set("min-replicas-to-write", 0)

    told = caplog.text + refused.value.cause
    assert "NOREPLICAS" in told
    assert ended.id not in told
    assert USER not in told
