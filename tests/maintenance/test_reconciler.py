"""The reconciler counts lost sessions and keys without a TTL, and continues after failures."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from service.errors import StoreUnavailable
from service.maintenance.reconciler import Reconciler
from service.observability.metrics import Metrics
from service.redis_client.cluster import ClusterClient
from service.redis_client.pipeline import Pipeline
from service.redis_client.scripts import Command
from service.sessions.session import Session
from service.sessions.store import SessionStore
from tests.aging import age
from tests.attempt import attempt
from tests.conftest import AGENT, USER, redis_client_for
from tests.counted import counted, read_from
from tests.maintenance.reconcilers import OWNER_INDEX_LIFETIME_MS, entries_of, new_reconciler
from tests.redis_contents import KEYS, contents, scores_of, tombstone_of

MINUTE_MS = 60_000
CORRUPTIONS: dict[str, list[Command]] = {
    "an index": [("SET", KEYS.created("zz"), "not an index", "PX", MINUTE_MS)],
    "a session": [
        ("ZADD", KEYS.created("zz"), 1, "zz-1"),
        ("SET", KEYS.session("zz-1"), "not a hash", "PX", MINUTE_MS),
    ],
    "a timestamp": [
        ("ZADD", KEYS.created("zz"), 1, "zz-1"),
        ("HSET", KEYS.session("zz-1"), "expiresAt", "soon"),
        ("PEXPIRE", KEYS.session("zz-1"), MINUTE_MS),
    ],
}


@pytest.fixture
async def persistent_session(session: Session, real_redis: Redis) -> AsyncIterator[Session]:
    """A session whose keys have no TTL."""
    await real_redis.persist(KEYS.session(session.id))
    await real_redis.persist(KEYS.tombstone(session.id))
    yield session
    await real_redis.flushall()


# Lost sessions


async def test_a_lost_session_is_counted_once(reconciler: Reconciler, lost_session: Session, metrics: Metrics) -> None:
    await reconciler.reconcile_next_shard()
    await reconciler.reconcile_next_shard()

    assert counted(metrics.ended) == {"lost": 1}


@pytest.mark.usefixtures("lost_session", "reconciler")
async def test_twenty_concurrent_reconcilers_count_a_lost_session_once(real_redis: Redis, metrics: Metrics) -> None:
    reconcilers = [new_reconciler(real_redis, metrics) for _ in range(20)]

    await asyncio.gather(*(reconciler.reconcile_next_shard() for reconciler in reconcilers))

    assert counted(metrics.ended) == {"lost": 1}


async def test_the_tombstone_of_a_lost_session_gains_only_the_time_of_the_loss(
    reconciler: Reconciler, lost_session: Session, store: SessionStore, real_redis: Redis
) -> None:
    before = await tombstone_of(real_redis, lost_session)
    expires_at_ms = await real_redis.pexpiretime(KEYS.tombstone(lost_session.id))

    await reconciler.reconcile_next_shard()

    after = await tombstone_of(real_redis, lost_session)
    assert int(after.pop("lostAt")) >= lost_session.created_at_ms
    assert (after, await real_redis.pexpiretime(KEYS.tombstone(lost_session.id))) == (before, expires_at_ms)
    assert await attempt(store.get, lost_session.id) == "missing"


async def test_an_expired_session_is_not_lost(
    reconciler: Reconciler, session: Session, real_redis: Redis, metrics: Metrics
) -> None:
    await age(real_redis, session.id, 31 * MINUTE_MS)

    await reconciler.reconcile_next_shard()

    assert counted(metrics.ended) == {}


@pytest.mark.usefixtures("reconciler")
async def test_a_session_lost_with_its_tombstone_is_counted_once_and_removed(
    lost_session: Session, real_redis: Redis, metrics: Metrics
) -> None:
    await real_redis.delete(KEYS.tombstone(lost_session.id))

    await asyncio.gather(*(new_reconciler(real_redis, metrics).reconcile_next_shard() for _ in range(10)))

    assert counted(metrics.ended) == {"lost": 1}
    assert await scores_of(real_redis, lost_session) == {"expiry": None, "warning": None, "created": None}
    assert await real_redis.exists(KEYS.tombstone(lost_session.id)) == 0


# Keys without a TTL


async def test_keys_without_a_ttl_are_counted(
    reconciler: Reconciler, persistent_session: Session, metrics: Metrics
) -> None:
    await reconciler.reconcile_next_shard()

    assert read_from(metrics.keys_without_end) == 2


async def test_keys_without_a_ttl_are_not_changed(
    reconciler: Reconciler, persistent_session: Session, real_redis: Redis
) -> None:
    before = await contents(real_redis)

    await reconciler.reconcile_next_shard()

    assert await contents(real_redis) == before


async def test_an_owner_index_without_a_ttl_is_counted_and_gets_a_ttl(
    reconciler: Reconciler, session: Session, real_redis: Redis, metrics: Metrics
) -> None:
    await real_redis.persist(KEYS.agent(AGENT))

    await reconciler.reconcile_next_shard()

    assert read_from(metrics.keys_without_end) == 1
    ttl_ms = await real_redis.pttl(KEYS.agent(AGENT))
    assert 2 * OWNER_INDEX_LIFETIME_MS - MINUTE_MS < ttl_ms <= 2 * OWNER_INDEX_LIFETIME_MS


async def test_keys_without_a_ttl_are_summed_over_all_shards(
    reconciler: Reconciler,
    persistent_session: Session,
    real_redis: Redis,
    metrics: Metrics,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await reconciler.reconcile_next_shard()
    monkeypatch.setattr("service.maintenance.reconciler.SHARDS", ("zz",))

    await reconciler.reconcile_next_shard()

    assert read_from(metrics.keys_without_end) == 2


async def test_keys_without_a_ttl_are_logged_once_per_incident(
    reconciler: Reconciler,
    persistent_session: Session,
    real_redis: Redis,
    metrics: Metrics,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await reconciler.reconcile_next_shard()
    await reconciler.reconcile_next_shard()
    first_warnings = caplog.text.count("have no TTL")
    await real_redis.pexpire(KEYS.session(persistent_session.id), MINUTE_MS)
    await real_redis.pexpire(KEYS.tombstone(persistent_session.id), MINUTE_MS)
    await reconciler.reconcile_next_shard()
    count_with_ttl = read_from(metrics.keys_without_end)
    await real_redis.persist(KEYS.tombstone(persistent_session.id))
    await reconciler.reconcile_next_shard()

    assert (first_warnings, count_with_ttl) == (1, 0)
    assert caplog.text.count("have no TTL") == 2


# Failures


@pytest.mark.parametrize("corruption", CORRUPTIONS.values(), ids=CORRUPTIONS)
async def test_a_corrupted_shard_does_not_block_other_shards(
    reconciler: Reconciler,
    session: Session,
    real_redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    corruption: list[Command],
) -> None:
    monkeypatch.setattr("service.maintenance.reconciler.SHARDS", ("zz", session.id[:2]))
    await redis_client_for(real_redis).execute(*corruption, ("DEL", KEYS.user(USER)))

    await reconciler.reconcile_next_shard()
    await reconciler.reconcile_next_shard()

    assert (await entries_of(real_redis, KEYS.user(USER))).keys() == {session.id}


async def test_a_shard_that_fails_is_reconciled_after_the_others(
    reconciler: Reconciler, session: Session, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reject(*_: object) -> None:
        raise StoreUnavailable("the test interrupts the command")

    monkeypatch.setattr("service.maintenance.reconciler.SHARDS", (session.id[:2], "zz"))
    await real_redis.delete(KEYS.user(USER))
    with monkeypatch.context() as outage:
        outage.setattr(Pipeline, "execute", reject)
        outage.setattr(ClusterClient, "execute", reject)
        with pytest.raises(StoreUnavailable):
            await reconciler.reconcile_next_shard()

    await reconciler.reconcile_next_shard()
    after_other_shard = await entries_of(real_redis, KEYS.user(USER))
    await reconciler.reconcile_next_shard()

    assert after_other_shard == {}
    assert (await entries_of(real_redis, KEYS.user(USER))).keys() == {session.id}
