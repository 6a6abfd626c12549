"""The sweeper removes expired sessions from all indexes, and changes no live session."""

import asyncio
import re

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
NOT_INDEXED = {"expiry": None, "warning": None, "created": None}
SHARD, ID_IN_SHARD = "zz", "zz90c3cc-0d44-4b50-8888-8dd25736052a"
CORRUPTIONS: dict[str, list[Command]] = {
    "the expiry index": [("SET", KEYS.expiry(SHARD), "not an index", "PX", MINUTE_MS)],
    "another index": [
        ("ZADD", KEYS.expiry(SHARD), 1, ID_IN_SHARD),
        ("SET", KEYS.created(SHARD), "not an index", "PX", MINUTE_MS),
    ],
    "an id": [("ZADD", KEYS.expiry(SHARD), 1, b"\xff")],
    "a timestamp": [
        ("ZADD", KEYS.expiry(SHARD), 1, ID_IN_SHARD),
        ("HSET", KEYS.tombstone(ID_IN_SHARD), "agentId", "a", "userId", "u", "expiresAt", "soon"),
        ("PEXPIRE", KEYS.tombstone(ID_IN_SHARD), MINUTE_MS),
    ],
}


@pytest.fixture
async def sweeper(real_redis: Redis, metrics: Metrics) -> Sweeper:
    return new_sweeper(real_redis, metrics)


@pytest.fixture
async def expired_session(session: Session, real_redis: Redis) -> Session:
    """A session that expired by inactivity a minute ago."""
    await age(real_redis, session.id, 31 * MINUTE_MS)
    return session


def new_sweeper(redis: Redis, metrics: Metrics) -> Sweeper:
    redis_client = redis_client_for(redis)
    return Sweeper(redis_client, Keys(""), new_session_events(metrics), metrics, retention_ms=RETENTION_MS)


async def owner_index_scores(redis: Redis, session: Session) -> list[float | None]:
    keys = (KEYS.user(session.user_id), KEYS.agent(session.agent_id))
    return [await redis.zscore(key, session.id) for key in keys]


async def test_an_expired_session_is_removed_from_its_shard(
    sweeper: Sweeper, expired_session: Session, real_redis: Redis
) -> None:
    await sweeper.sweep()

    assert await scores_of(real_redis, expired_session) == NOT_INDEXED


async def test_an_expired_session_is_removed_from_its_owner_indexes(
    sweeper: Sweeper, expired_session: Session, real_redis: Redis
) -> None:
    await sweeper.sweep()

    assert await owner_index_scores(real_redis, expired_session) == [None, None]


async def test_the_tombstone_of_a_swept_session_stays(
    sweeper: Sweeper, expired_session: Session, store: SessionStore, real_redis: Redis
) -> None:
    before = await tombstone_of(real_redis, expired_session)
    expires_at_ms = await real_redis.pexpiretime(KEYS.tombstone(expired_session.id))

    await sweeper.sweep()

    after = await tombstone_of(real_redis, expired_session)
    assert len(after.pop("ownerHash")) == 16
    assert after == {name: before[name] for name in ("expiresAt", "reason")}
    assert await real_redis.pexpiretime(KEYS.tombstone(expired_session.id)) == expires_at_ms
    assert await attempt(store.get, expired_session.id) == "expired"


async def test_a_tombstone_without_a_ttl_gets_its_ttl_again(
    sweeper: Sweeper, expired_session: Session, real_redis: Redis
) -> None:
    await real_redis.persist(KEYS.tombstone(expired_session.id))
    await real_redis.zadd(KEYS.expiry(expired_session.id[:2]), {expired_session.id: 1})

    await sweeper.sweep()

    expired_at_ms = int((await tombstone_of(real_redis, expired_session))["expiresAt"])
    assert await real_redis.pexpiretime(KEYS.tombstone(expired_session.id)) == expired_at_ms + RETENTION_MS


async def test_a_tombstone_without_a_ttl_is_deleted_after_its_retention(
    sweeper: Sweeper, session: Session, real_redis: Redis
) -> None:
    await real_redis.persist(KEYS.tombstone(session.id))
    await age(real_redis, session.id, 91 * MINUTE_MS)
    await real_redis.hincrby(KEYS.tombstone(session.id), "expiresAt", -91 * MINUTE_MS)

    await sweeper.sweep()

    assert await real_redis.exists(KEYS.tombstone(session.id)) == 0


async def test_an_infinite_score_does_not_block_the_sweeper(
    sweeper: Sweeper, expired_session: Session, real_redis: Redis
) -> None:
    await real_redis.zadd(KEYS.expiry(expired_session.id[:2]), {expired_session.id: float("-inf")})

    await sweeper.sweep()

    assert await scores_of(real_redis, expired_session) == NOT_INDEXED


async def test_the_script_is_sent_once_after_a_script_flush(sweeper: Sweeper, real_redis: Redis) -> None:
    await sweeper.sweep()
    await real_redis.script_flush()
    await reset_command_counts(real_redis)

    await sweeper.sweep()

    assert (await command_counts(real_redis))["eval"] == 1


async def test_expired_sessions_are_counted_by_reason(
    sweeper: Sweeper, expired_session: Session, store: SessionStore, real_redis: Redis, metrics: Metrics
) -> None:
    longest_session = await create_session(store, config=TimeoutConfig(30, True, 30, 5)._asdict())
    await age(real_redis, longest_session.id, 30 * MINUTE_MS)

    await sweeper.sweep()

    assert counted(metrics.ended) == {"inactivity": 1, "max_duration": 1}


async def test_a_session_counted_as_lost_is_not_counted_again(
    sweeper: Sweeper, expired_session: Session, real_redis: Redis, metrics: Metrics
) -> None:
    await real_redis.hset(KEYS.tombstone(expired_session.id), "lostAt", expired_session.created_at_ms)

    await sweeper.sweep()

    assert counted(metrics.ended) == {}
    assert sorted(await tombstone_of(real_redis, expired_session)) == ["expiresAt", "ownerHash", "reason"]
    assert await scores_of(real_redis, expired_session) == NOT_INDEXED


async def test_the_sweeper_measures_its_lag(sweeper: Sweeper, expired_session: Session, metrics: Metrics) -> None:
    await sweeper.sweep()
    lag_ms_before, lag_seconds_before = sweeper.lag_ms, read_from(metrics.sweeper_lag_seconds)
    await sweeper.sweep()

    assert 1 * MINUTE_MS <= lag_ms_before < 2 * MINUTE_MS
    assert lag_ms_before / 1000 <= lag_seconds_before < 2 * MINUTE_MS / 1000
    assert sweeper.lag_ms == 0
    assert read_from(metrics.sweeper_lag_seconds) < 1 * MINUTE_MS / 1000


async def test_the_lag_grows_while_the_sweeper_does_not_run(sweeper: Sweeper, metrics: Metrics) -> None:
    await sweeper.sweep()

    sweeper.lag_measured_at -= 300

    assert 300 <= (metrics.registry.get_sample_value("sessions_sweeper_lag_seconds") or 0) < 360


async def test_a_live_session_is_not_changed(sweeper: Sweeper, session: Session, real_redis: Redis) -> None:
    before = (await fields_of(real_redis, session), await scores_of(real_redis, session))

    await sweeper.sweep()

    assert (await fields_of(real_redis, session), await scores_of(real_redis, session)) == before
    assert None not in await owner_index_scores(real_redis, session)


async def test_a_wrong_index_entry_is_corrected_and_expires_no_session(
    sweeper: Sweeper, session: Session, store: SessionStore, real_redis: Redis
) -> None:
    await real_redis.zadd(KEYS.expiry(session.id[:2]), {session.id: 1})

    await sweeper.sweep()

    assert await attempt(store.get, session.id) == "live"
    assert (await scores_of(real_redis, session))["expiry"] == session.expires_at_ms
    assert None not in await owner_index_scores(real_redis, session)


async def test_a_session_hash_that_outlived_its_expiry_is_deleted(
    sweeper: Sweeper, session: Session, store: SessionStore, real_redis: Redis
) -> None:
    await real_redis.persist(KEYS.session(session.id))
    await age(real_redis, session.id, 31 * MINUTE_MS)
    await real_redis.hincrby(KEYS.session(session.id), "expiresAt", -31 * MINUTE_MS)

    await sweeper.sweep()

    assert await real_redis.exists(KEYS.session(session.id)) == 0
    assert await attempt(store.get, session.id) == "expired"


async def test_an_expired_session_without_a_tombstone_is_removed_from_its_shard(
    sweeper: Sweeper, expired_session: Session, real_redis: Redis, metrics: Metrics
) -> None:
    await real_redis.delete(KEYS.tombstone(expired_session.id))

    await sweeper.sweep()

    assert await scores_of(real_redis, expired_session) == NOT_INDEXED
    assert counted(metrics.ended) == {"unknown": 1}


async def test_the_next_sweep_finishes_an_interrupted_sweep(
    sweeper: Sweeper,
    expired_session: Session,
    redis_client: RedisClient,
    real_redis: Redis,
    metrics: Metrics,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as interruption:
        interruption.setattr(sweeper, "_remove", lambda *_: asyncio.sleep(0))
        await sweeper.sweep()
    after_interruption = await scores_of(real_redis, expired_session)

    await sweeper.sweep()

    assert None not in after_interruption.values()
    assert await scores_of(real_redis, expired_session) == NOT_INDEXED
    assert counted(metrics.ended) == {"inactivity": 1}


async def test_twenty_concurrent_sweepers_count_an_expired_session_once(
    expired_session: Session, real_redis: Redis, metrics: Metrics
) -> None:
    sweepers = [new_sweeper(real_redis, metrics) for _ in range(20)]

    await asyncio.gather(*(sweeper.sweep() for sweeper in sweepers))

    assert counted(metrics.ended) == {"inactivity": 1}


async def test_one_sweep_removes_one_batch_per_shard(
    sweeper: Sweeper, store: SessionStore, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = iter(f"ab90c3cc-0d44-4b50-8888-{number:012x}" for number in range(BATCH_PER_SHARD + 1))
    monkeypatch.setattr("service.sessions.creation.new_session_id", lambda *_: next(ids))
    sessions = [await create_session(store) for _ in range(BATCH_PER_SHARD + 1)]
    await asyncio.gather(*(age(real_redis, session.id, 31 * MINUTE_MS) for session in sessions))

    await sweeper.sweep()
    left_after_first_sweep = await real_redis.zcard(KEYS.expiry("ab"))
    await sweeper.sweep()

    assert (left_after_first_sweep, await real_redis.zcard(KEYS.expiry("ab"))) == (1, 0)


async def test_concurrent_sweepers_and_heartbeats_expire_no_session(
    session: Session, store: SessionStore, real_redis: Redis
) -> None:
    await real_redis.zadd(KEYS.expiry(session.id[:2]), {session.id: 1})
    sweepers = [new_sweeper(real_redis, Metrics()) for _ in range(10)]

    answers = await asyncio.gather(
        *(sweeper.sweep() for sweeper in sweepers), *(attempt(store.heartbeat, session.id) for _ in range(20))
    )

    assert answers[10:] == ["live"] * 20
    assert (await scores_of(real_redis, session))["expiry"] == (await store.get(session.id)).expires_at_ms


@pytest.mark.parametrize("corruption", CORRUPTIONS.values(), ids=CORRUPTIONS)
async def test_a_corrupted_shard_does_not_block_other_shards(
    sweeper: Sweeper,
    expired_session: Session,
    real_redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    corruption: list[Command],
) -> None:
    monkeypatch.setattr("service.maintenance.sweeper.SHARDS", (SHARD, expired_session.id[:2]))
    await redis_client_for(real_redis).execute(*corruption)

    await sweeper.sweep()

    assert await scores_of(real_redis, expired_session) == NOT_INDEXED
    assert re.search("a shard cannot be swept|a record in Redis is unreadable", caplog.text)


async def test_a_shard_of_a_wrong_type_is_logged_once_per_incident(
    sweeper: Sweeper, real_redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    corruption: Command = ("SET", KEYS.expiry(SHARD), "not an index", "PX", MINUTE_MS)
    monkeypatch.setattr("service.maintenance.sweeper.SHARDS", (SHARD,))
    execute = redis_client_for(real_redis).execute
    await execute(corruption)
    await sweeper.sweep()
    await sweeper.sweep()
    first_errors = caplog.text.count("a shard cannot be swept")
    await real_redis.flushall()
    await sweeper.sweep()
    await execute(corruption)

    await sweeper.sweep()

    assert first_errors == 1
    assert caplog.text.count("a shard cannot be swept") == 2


async def test_an_incident_ends_when_its_shard_is_swept(
    sweeper: Sweeper, real_redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("service.maintenance.sweeper.SHARDS", (SHARD,))
    execute = redis_client_for(real_redis).execute
    await execute(*CORRUPTIONS["another index"])
    await sweeper.sweep()
    await real_redis.delete(KEYS.created(SHARD))
    await sweeper.sweep()
    await execute(*CORRUPTIONS["another index"])

    await sweeper.sweep()

    assert caplog.text.count("a shard cannot be swept") == 2


@pytest.mark.parametrize("kind", ["server"])
async def test_a_server_that_rejects_writes_ends_the_sweep_and_no_id_is_logged(
    sweeper: Sweeper, expired_session: Session, real_redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    await real_redis.config_set("min-replicas-to-write", 1)

    with pytest.raises(StoreUnavailable) as failure:
        await sweeper.sweep()
    await real_redis.config_set("min-replicas-to-write", 0)

    logged = caplog.text + failure.value.cause
    assert "NOREPLICAS" in logged
    assert expired_session.id not in logged
    assert USER not in logged
