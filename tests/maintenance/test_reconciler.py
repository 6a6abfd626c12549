"""Reconciling: lookups learn again what they lack, lost sessions and keys without an end are counted."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.errors import StoreUnavailable
from service.maintenance.index_repair import IndexedSession, IndexRemoval, IndexRepair
from service.maintenance.lost_sessions import LostSessions
from service.maintenance.reconciler import PAGE_SIZE, Reconciler
from service.maintenance.sweeper import Sweeper
from service.observability.metrics import Metrics
from service.redis_client.client import PartialFailure, RedisClient
from service.redis_client.cluster import ClusterClient
from service.redis_client.pipeline import Pipeline
from service.redis_client.scripts import Command
from service.sessions.keys import SHARDS
from service.sessions.revocation import BulkRevocation, OwnerFilter
from service.sessions.scripts import DELETE
from service.sessions.session import Session
from service.sessions.store import SessionStore
from service.settings import Settings
from tests.aging import age
from tests.attempt import attempt
from tests.conftest import AGENT, USER, HttpClient, ServiceServer, create_session, new_session_events, redis_client_for
from tests.counted import counted, read_from
from tests.interruption import Action, Interrupted
from tests.redis_contents import KEYS, contents, scores_of, tombstone_of
from tests.test_walkthrough import open_session

MINUTE_MS = 60_000
LOOKUP_LIFE_MS = 1_000_000_000
AN_ID = "ab90c3cc-0d44-4b50-8888-8dd25736052a"
TAMPERINGS: dict[str, list[Command]] = {
    "its index": [("SET", KEYS.created("zz"), "no index", "PX", MINUTE_MS)],
    "a session": [("ZADD", KEYS.created("zz"), 1, "zz-1"), ("SET", KEYS.session("zz-1"), "no hash", "PX", MINUTE_MS)],
    "an instant": [
        ("ZADD", KEYS.created("zz"), 1, "zz-1"),
        ("HSET", KEYS.session("zz-1"), "expiresAt", "soon"),
        ("PEXPIRE", KEYS.session("zz-1"), MINUTE_MS),
    ],
}
SOON = 10
"""Seconds."""


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def reconciler(
    session: Session, real_redis: Redis, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> Reconciler:
    """Each of its rounds looks over the shard of `session`."""
    monkeypatch.setattr("service.maintenance.reconciler.SHARDS", (session.id[:2],))
    return reconciler_on(real_redis, metrics)


@pytest.fixture
async def lost(session: Session, real_redis: Redis) -> Session:
    """A session whose hash was removed by hand."""
    await real_redis.delete(KEYS.session(session.id))
    return session


@pytest.fixture
async def endless(session: Session, real_redis: Redis) -> AsyncIterator[Session]:
    """A session neither of whose keys would ever die."""
    await real_redis.persist(KEYS.session(session.id))
    await real_redis.persist(KEYS.tombstone(session.id))
    yield session
    await real_redis.flushall()


def reconciler_on(redis: Redis, metrics: Metrics) -> Reconciler:
    return reconciler_over(redis_client_for(redis), metrics)


def reconciler_over(redis_client: RedisClient, metrics: Metrics) -> Reconciler:
    delisting = IndexRemoval(redis_client, KEYS)
    relisting = IndexRepair(redis_client, KEYS, delisting, owner_index_lifetime_ms=LOOKUP_LIFE_MS)
    return Reconciler(
        redis_client, KEYS, relisting, LostSessions(redis_client, KEYS, new_session_events(metrics)), metrics
    )


async def listed(redis: Redis, owner_index: str) -> dict[str, int]:
    entries: list[tuple[bytes, float]] = await redis.zrange(owner_index, 0, -1, withscores=True)  # type: ignore[assignment]
    return {session_id.decode(): int(score) for session_id, score in entries}


async def once_around(reconciler: Reconciler) -> None:
    for _ in SHARDS:
        await reconciler.reconcile_next_shard()


async def there(redis: Redis, key: str) -> None:
    """Wait until there is such a key."""
    async with asyncio.timeout(SOON):
        while not await redis.exists(key):
            continue


# Lookups


@pytest.mark.parametrize("owner_index", [KEYS.user(USER), KEYS.agent(AGENT)], ids=["user", "agent"])
async def test_a_lookup_that_was_deleted_is_put_back_as_of_the_creation(
    reconciler: Reconciler, session: Session, real_redis: Redis, owner_index: str
) -> None:
    await age(real_redis, session.id, 10 * MINUTE_MS)
    await real_redis.delete(owner_index)

    await reconciler.reconcile_next_shard()

    assert await listed(real_redis, owner_index) == {session.id: session.created_at_ms - 10 * MINUTE_MS}
    assert 2 * LOOKUP_LIFE_MS - MINUTE_MS < await real_redis.pttl(owner_index) <= 2 * LOOKUP_LIFE_MS


async def test_where_nothing_is_lacking_nothing_is_changed(
    reconciler: Reconciler, session: Session, real_redis: Redis
) -> None:
    await real_redis.zadd(KEYS.user(USER), {session.id: 1})
    before = await contents(real_redis)

    await reconciler.reconcile_next_shard()

    assert await contents(real_redis) == before


async def test_what_no_shard_knows_stays_in_a_lookup(
    reconciler: Reconciler, session: Session, real_redis: Redis
) -> None:
    await real_redis.delete(KEYS.user(USER))
    await real_redis.zadd(KEYS.user(USER), {AN_ID: session.created_at_ms})
    await real_redis.pexpire(KEYS.user(USER), MINUTE_MS)

    await reconciler.reconcile_next_shard()

    assert (await listed(real_redis, KEYS.user(USER))).keys() == {session.id, AN_ID}


async def test_an_ended_session_is_not_put_back(reconciler: Reconciler, session: Session, real_redis: Redis) -> None:
    await age(real_redis, session.id, 31 * MINUTE_MS)
    await real_redis.delete(KEYS.user(USER), KEYS.agent(AGENT))

    await reconciler.reconcile_next_shard()

    assert await real_redis.exists(KEYS.user(USER), KEYS.agent(AGENT)) == 0


async def test_a_hash_kept_past_its_end_is_not_put_back(
    reconciler: Reconciler, session: Session, real_redis: Redis
) -> None:
    await real_redis.hset(KEYS.session(session.id), "expiresAt", session.read_at_ms - 1)
    await real_redis.delete(KEYS.user(USER), KEYS.agent(AGENT))

    await reconciler.reconcile_next_shard()

    assert await real_redis.exists(KEYS.user(USER), KEYS.agent(AGENT)) == 0


async def test_many_of_one_millisecond_are_all_put_back(
    store: SessionStore, real_redis: Redis, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"ab90c3cc-0d44-4b50-8888-{number:012x}" for number in range(3 * PAGE_SIZE + 1)]
    coming = iter(ids)
    monkeypatch.setattr("service.sessions.creation.new_session_id", lambda *_: next(coming))
    monkeypatch.setattr("service.maintenance.reconciler.SHARDS", ("ab",))
    await asyncio.gather(*(create_session(store) for _ in ids))
    await real_redis.zadd(KEYS.created("ab"), dict.fromkeys(ids, 1))
    await real_redis.delete(KEYS.agent(AGENT))

    await reconciler_on(real_redis, metrics).reconcile_next_shard()

    assert (await listed(real_redis, KEYS.agent(AGENT))).keys() == set(ids)


async def test_every_shard_has_its_turn(store: SessionStore, real_redis: Redis, metrics: Metrics) -> None:
    sessions = [await create_session(store) for _ in range(5)]
    await real_redis.delete(KEYS.agent(AGENT))

    await once_around(reconciler_on(real_redis, metrics))

    assert (await listed(real_redis, KEYS.agent(AGENT))).keys() == {session.id for session in sessions}


async def test_the_service_reconciles(
    real_redis: Redis, aiohttp_client: AiohttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.sessions.creation.new_session_id", lambda *_: AN_ID)
    monkeypatch.setattr("service.maintenance.reconciler.SHARDS", ("ab",))
    settings = Settings(session_reconcile_interval_seconds=0.01)
    client: HttpClient = await aiohttp_client(ServiceServer(settings, real_redis))
    await open_session(client)

    await real_redis.delete(KEYS.agent(AGENT))

    await there(real_redis, KEYS.agent(AGENT))
    assert (await listed(real_redis, KEYS.agent(AGENT))).keys() == {AN_ID}


# Sessions that end while they are put back


async def race(session: Session, real_redis: Redis, metrics: Metrics, **happening: Action) -> None:
    """Put a session back into its user's lookup while something happens before or after that."""
    await real_redis.delete(KEYS.user(USER))
    redis_client = Interrupted(redis_client_for(real_redis), "add_to_index", **happening)
    await reconciler_over(redis_client, metrics).reconcile_next_shard()


@pytest.fixture(params=["deleted", "revoked", "swept"])
async def ending(request: pytest.FixtureRequest, session: Session, real_redis: Redis, store: SessionStore) -> Action:
    """An end of a session that leaves nothing of it in any lookup."""

    async def passing_away() -> None:
        await age(real_redis, session.id, 31 * MINUTE_MS)
        await sweeper.sweep()

    redis_client, events = redis_client_for(real_redis), new_session_events(Metrics())
    sweeper = Sweeper(redis_client, KEYS, events, Metrics(), retention_ms=60 * MINUTE_MS)
    endings: dict[str, Action] = {
        "deleted": partial(store.delete, session.id),
        "revoked": partial(BulkRevocation(redis_client, KEYS, events).revoke, OwnerFilter(AGENT, None)),
        "swept": passing_away,
    }
    return endings[request.param]


@pytest.mark.usefixtures("reconciler")
async def test_one_that_ends_before_it_is_put_back_is_taken_out_again(
    session: Session, real_redis: Redis, metrics: Metrics, ending: Action
) -> None:
    await race(session, real_redis, metrics, before=ending)

    assert await real_redis.exists(KEYS.user(USER), KEYS.agent(AGENT)) == 0


@pytest.mark.usefixtures("reconciler")
async def test_one_that_ends_after_it_is_put_back_is_taken_out(
    session: Session, real_redis: Redis, metrics: Metrics, ending: Action
) -> None:
    await race(session, real_redis, metrics, after=ending)

    assert await real_redis.exists(KEYS.user(USER), KEYS.agent(AGENT)) == 0


@pytest.mark.usefixtures("reconciler")
async def test_one_whose_deletion_dies_on_its_way_is_taken_out(
    session: Session, real_redis: Redis, metrics: Metrics
) -> None:
    deletion = DELETE.command(KEYS.of(session.id), id=session.id, owner_id="")
    redis_client = redis_client_for(real_redis)

    await race(session, real_redis, metrics, after=partial(redis_client.execute, deletion))

    assert await real_redis.exists(KEYS.user(USER)) == 0


@pytest.mark.usefixtures("reconciler")
async def test_one_that_ends_before_an_entry_whose_fate_was_unknown_at_first_is_taken_out(
    session: Session, store: SessionStore, real_redis: Redis, metrics: Metrics
) -> None:
    async def unanswered() -> None:
        await store.delete(session.id)
        await real_redis.zadd(KEYS.user(USER), {session.id: session.created_at_ms})
        raise StoreUnavailable("it is a test")

    await real_redis.delete(KEYS.user(USER))
    redis_client = redis_client_for(real_redis)
    delisting = IndexRemoval(redis_client, KEYS)
    relisting = IndexRepair(
        Interrupted(redis_client, "add_to_index", before=unanswered), KEYS, delisting, owner_index_lifetime_ms=MINUTE_MS
    )
    living = IndexedSession(session.id, AGENT, USER, str(session.created_at_ms).encode())

    await relisting.repair([living], PartialFailure())

    assert await real_redis.exists(KEYS.user(USER)) == 0


# Lost sessions


async def test_a_lost_session_is_counted_once(reconciler: Reconciler, lost: Session, metrics: Metrics) -> None:
    await reconciler.reconcile_next_shard()
    await reconciler.reconcile_next_shard()

    assert counted(metrics.ended) == {"lost": 1}


@pytest.mark.usefixtures("lost", "reconciler")
async def test_of_twenty_reconcilers_at_once_one_counts_it(real_redis: Redis, metrics: Metrics) -> None:
    reconcilers = [reconciler_on(real_redis, metrics) for _ in range(20)]

    await asyncio.gather(*(reconciler.reconcile_next_shard() for reconciler in reconcilers))

    assert counted(metrics.ended) == {"lost": 1}


async def test_of_a_lost_session_only_the_instant_is_kept(
    reconciler: Reconciler, lost: Session, store: SessionStore, real_redis: Redis
) -> None:
    before, dies_at_ms = await tombstone_of(real_redis, lost), await real_redis.pexpiretime(KEYS.tombstone(lost.id))

    await reconciler.reconcile_next_shard()

    after = await tombstone_of(real_redis, lost)
    assert int(after.pop("lostAt")) >= lost.created_at_ms
    assert (after, await real_redis.pexpiretime(KEYS.tombstone(lost.id))) == (before, dies_at_ms)
    assert await attempt(store.get, lost.id) == "missing"


async def test_an_end_is_no_loss(reconciler: Reconciler, session: Session, real_redis: Redis, metrics: Metrics) -> None:
    await age(real_redis, session.id, 31 * MINUTE_MS)

    await reconciler.reconcile_next_shard()

    assert counted(metrics.ended) == {}


@pytest.mark.usefixtures("reconciler")
async def test_what_was_lost_with_its_tombstone_is_counted_once_and_leaves_its_shard(
    lost: Session, real_redis: Redis, metrics: Metrics
) -> None:
    await real_redis.delete(KEYS.tombstone(lost.id))

    await asyncio.gather(*(reconciler_on(real_redis, metrics).reconcile_next_shard() for _ in range(10)))

    assert counted(metrics.ended) == {"lost": 1}
    assert await scores_of(real_redis, lost) == {"expiry": None, "warning": None, "created": None}
    assert await real_redis.exists(KEYS.tombstone(lost.id)) == 0


# Keys without an end


async def test_keys_without_an_end_are_counted(reconciler: Reconciler, endless: Session, metrics: Metrics) -> None:
    await reconciler.reconcile_next_shard()

    assert read_from(metrics.keys_without_end) == 2


async def test_they_are_left_alone(reconciler: Reconciler, endless: Session, real_redis: Redis) -> None:
    before = await contents(real_redis)

    await reconciler.reconcile_next_shard()

    assert await contents(real_redis) == before


async def test_a_lookup_without_an_end_is_counted_and_gets_one(
    reconciler: Reconciler, session: Session, real_redis: Redis, metrics: Metrics
) -> None:
    await real_redis.persist(KEYS.agent(AGENT))

    await reconciler.reconcile_next_shard()

    assert read_from(metrics.keys_without_end) == 1
    assert 2 * LOOKUP_LIFE_MS - MINUTE_MS < await real_redis.pttl(KEYS.agent(AGENT)) <= 2 * LOOKUP_LIFE_MS


async def test_those_of_all_shards_are_summed(
    reconciler: Reconciler, endless: Session, real_redis: Redis, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    await reconciler.reconcile_next_shard()
    monkeypatch.setattr("service.maintenance.reconciler.SHARDS", ("zz",))

    await reconciler.reconcile_next_shard()

    assert read_from(metrics.keys_without_end) == 2


async def test_they_are_told_once_an_episode(
    reconciler: Reconciler, endless: Session, real_redis: Redis, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    await reconciler.reconcile_next_shard()
    await reconciler.reconcile_next_shard()
    told_first = caplog.text.count("have no TTL")
    await real_redis.pexpire(KEYS.session(endless.id), MINUTE_MS)
    await real_redis.pexpire(KEYS.tombstone(endless.id), MINUTE_MS)
    await reconciler.reconcile_next_shard()
    left = read_from(metrics.keys_without_end)
    await real_redis.persist(KEYS.tombstone(endless.id))
    await reconciler.reconcile_next_shard()

    assert (told_first, left) == (1, 0)
    assert caplog.text.count("have no TTL") == 2


# Trouble


@pytest.mark.parametrize("tampering", TAMPERINGS.values(), ids=TAMPERINGS)
async def test_a_shard_that_was_tampered_with_holds_up_no_other(
    reconciler: Reconciler,
    session: Session,
    real_redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tampering: list[Command],
) -> None:
    monkeypatch.setattr("service.maintenance.reconciler.SHARDS", ("zz", session.id[:2]))
    await redis_client_for(real_redis).execute(*tampering, ("DEL", KEYS.user(USER)))

    await reconciler.reconcile_next_shard()
    await reconciler.reconcile_next_shard()

    assert "a shard cannot be reconciled" in caplog.text
    assert (await listed(real_redis, KEYS.user(USER))).keys() == {session.id}


async def test_trouble_with_redis_puts_a_shard_off_until_its_next_turn(
    reconciler: Reconciler, session: Session, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object) -> None:
        raise StoreUnavailable("it is a test")

    monkeypatch.setattr("service.maintenance.reconciler.SHARDS", (session.id[:2], "zz"))
    await real_redis.delete(KEYS.user(USER))
    with monkeypatch.context() as outage:
        outage.setattr(Pipeline, "execute", refused)
        outage.setattr(ClusterClient, "execute", refused)
        with pytest.raises(StoreUnavailable):
            await reconciler.reconcile_next_shard()

    await reconciler.reconcile_next_shard()
    after_the_other = await listed(real_redis, KEYS.user(USER))
    await reconciler.reconcile_next_shard()

    assert after_the_other == {}
    assert (await listed(real_redis, KEYS.user(USER))).keys() == {session.id}
