"""The reconciler restores missing entries of owner indexes."""

import asyncio
from functools import partial

import pytest
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.errors import StoreUnavailable
from service.maintenance.index_repair import IndexedSession, IndexRemoval, IndexRepair
from service.maintenance.reconciler import PAGE_SIZE, Reconciler
from service.maintenance.sweeper import Sweeper
from service.observability.metrics import Metrics
from service.redis_client.client import PartialFailure
from service.sessions.keys import SHARDS
from service.sessions.revocation import BulkRevocation, OwnerFilter
from service.sessions.scripts import DELETE
from service.sessions.session import Session
from service.sessions.store import SessionStore
from service.settings import Settings
from tests.aging import age
from tests.conftest import AGENT, USER, HttpClient, ServiceServer, create_session, new_session_events, redis_client_for
from tests.interruption import Action, Interrupted
from tests.maintenance.reconcilers import OWNER_INDEX_LIFETIME_MS, entries_of, new_reconciler, reconciler_with
from tests.redis_contents import KEYS, contents
from tests.test_walkthrough import open_session

MINUTE_MS = 60_000
AN_ID = "ab90c3cc-0d44-4b50-8888-8dd25736052a"
WAIT_SECONDS = 30


async def reconcile_all_shards(reconciler: Reconciler) -> None:
    for _ in SHARDS:
        await reconciler.reconcile_next_shard()


async def wait_until_exists(redis: Redis, key: str) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not await redis.exists(key):
            continue


# Missing entries


@pytest.mark.parametrize("owner_index", [KEYS.user(USER), KEYS.agent(AGENT)], ids=["user", "agent"])
async def test_a_deleted_owner_index_is_restored_with_creation_times(
    reconciler: Reconciler, session: Session, real_redis: Redis, owner_index: str
) -> None:
    await age(real_redis, session.id, 10 * MINUTE_MS)
    await real_redis.delete(owner_index)

    await reconciler.reconcile_next_shard()

    assert await entries_of(real_redis, owner_index) == {session.id: session.created_at_ms - 10 * MINUTE_MS}
    assert 2 * OWNER_INDEX_LIFETIME_MS - MINUTE_MS < await real_redis.pttl(owner_index) <= 2 * OWNER_INDEX_LIFETIME_MS


async def test_a_complete_owner_index_is_not_changed(
    reconciler: Reconciler, session: Session, real_redis: Redis
) -> None:
    await real_redis.zadd(KEYS.user(USER), {session.id: 1})
    before = await contents(real_redis)

    await reconciler.reconcile_next_shard()

    assert await contents(real_redis) == before


async def test_an_id_without_a_session_stays_in_the_owner_index(
    reconciler: Reconciler, session: Session, real_redis: Redis
) -> None:
    await real_redis.delete(KEYS.user(USER))
    await real_redis.zadd(KEYS.user(USER), {AN_ID: session.created_at_ms})
    await real_redis.pexpire(KEYS.user(USER), MINUTE_MS)

    await reconciler.reconcile_next_shard()

    assert (await entries_of(real_redis, KEYS.user(USER))).keys() == {session.id, AN_ID}


async def test_an_expired_session_is_not_restored(reconciler: Reconciler, session: Session, real_redis: Redis) -> None:
    await age(real_redis, session.id, 31 * MINUTE_MS)
    await real_redis.delete(KEYS.user(USER), KEYS.agent(AGENT))

    await reconciler.reconcile_next_shard()

    assert await real_redis.exists(KEYS.user(USER), KEYS.agent(AGENT)) == 0


async def test_a_session_hash_that_outlived_its_expiry_is_not_restored(
    reconciler: Reconciler, session: Session, real_redis: Redis
) -> None:
    await real_redis.hset(KEYS.session(session.id), "expiresAt", session.read_at_ms - 1)
    await real_redis.delete(KEYS.user(USER), KEYS.agent(AGENT))

    await reconciler.reconcile_next_shard()

    assert await real_redis.exists(KEYS.user(USER), KEYS.agent(AGENT)) == 0


async def test_many_sessions_of_one_millisecond_are_all_restored(
    store: SessionStore, real_redis: Redis, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"ab90c3cc-0d44-4b50-8888-{number:012x}" for number in range(3 * PAGE_SIZE + 1)]
    next_ids = iter(ids)
    monkeypatch.setattr("service.sessions.creation.new_session_id", lambda *_: next(next_ids))
    monkeypatch.setattr("service.maintenance.reconciler.SHARDS", ("ab",))
    await asyncio.gather(*(create_session(store) for _ in ids))
    await real_redis.zadd(KEYS.created("ab"), dict.fromkeys(ids, 1))
    await real_redis.delete(KEYS.agent(AGENT))

    await new_reconciler(real_redis, metrics).reconcile_next_shard()

    assert (await entries_of(real_redis, KEYS.agent(AGENT))).keys() == set(ids)


async def test_every_shard_is_reconciled(store: SessionStore, real_redis: Redis, metrics: Metrics) -> None:
    sessions = [await create_session(store) for _ in range(5)]
    await real_redis.delete(KEYS.agent(AGENT))

    await reconcile_all_shards(new_reconciler(real_redis, metrics))

    assert (await entries_of(real_redis, KEYS.agent(AGENT))).keys() == {session.id for session in sessions}


async def test_the_service_runs_the_reconciler(
    real_redis: Redis, aiohttp_client: AiohttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.sessions.creation.new_session_id", lambda *_: AN_ID)
    monkeypatch.setattr("service.maintenance.reconciler.SHARDS", ("ab",))
    settings = Settings(session_reconcile_interval_seconds=0.01)
    client: HttpClient = await aiohttp_client(ServiceServer(settings, real_redis))
    await open_session(client)

    await real_redis.delete(KEYS.agent(AGENT))

    await wait_until_exists(real_redis, KEYS.agent(AGENT))
    assert (await entries_of(real_redis, KEYS.agent(AGENT))).keys() == {AN_ID}


# Sessions that end during the repair


async def race(session: Session, real_redis: Redis, metrics: Metrics, **actions: Action) -> None:
    """Restore a session in the owner index of its user, with actions before or after that."""
    await real_redis.delete(KEYS.user(USER))
    redis_client = Interrupted(redis_client_for(real_redis), "add_to_index", **actions)
    await reconciler_with(redis_client, metrics).reconcile_next_shard()


@pytest.fixture(params=["deleted", "revoked", "swept"])
async def end_session(
    request: pytest.FixtureRequest, session: Session, real_redis: Redis, store: SessionStore
) -> Action:
    """A way to end a session that removes it from all owner indexes."""

    async def expire_and_sweep() -> None:
        await age(real_redis, session.id, 31 * MINUTE_MS)
        await sweeper.sweep()

    redis_client, events = redis_client_for(real_redis), new_session_events(Metrics())
    sweeper = Sweeper(redis_client, KEYS, events, Metrics(), retention_ms=60 * MINUTE_MS)
    ways_to_end: dict[str, Action] = {
        "deleted": partial(store.delete, session.id),
        "revoked": partial(BulkRevocation(redis_client, KEYS, events).revoke, OwnerFilter(AGENT, None)),
        "swept": expire_and_sweep,
    }
    return ways_to_end[request.param]


@pytest.mark.usefixtures("reconciler")
async def test_a_session_that_ends_before_it_is_restored_is_removed_again(
    session: Session, real_redis: Redis, metrics: Metrics, end_session: Action
) -> None:
    await race(session, real_redis, metrics, before=end_session)

    assert await real_redis.exists(KEYS.user(USER), KEYS.agent(AGENT)) == 0


@pytest.mark.usefixtures("reconciler")
async def test_a_session_that_ends_after_it_is_restored_is_removed(
    session: Session, real_redis: Redis, metrics: Metrics, end_session: Action
) -> None:
    await race(session, real_redis, metrics, after=end_session)

    assert await real_redis.exists(KEYS.user(USER), KEYS.agent(AGENT)) == 0


@pytest.mark.usefixtures("reconciler")
async def test_a_session_with_an_interrupted_deletion_is_removed(
    session: Session, real_redis: Redis, metrics: Metrics
) -> None:
    deletion = DELETE.command(KEYS.of(session.id), id=session.id, owner_id="")
    redis_client = redis_client_for(real_redis)

    await race(session, real_redis, metrics, after=partial(redis_client.execute, deletion))

    assert await real_redis.exists(KEYS.user(USER)) == 0


@pytest.mark.usefixtures("reconciler")
async def test_an_entry_without_a_confirmed_addition_is_removed(
    session: Session, store: SessionStore, real_redis: Redis, metrics: Metrics
) -> None:
    async def delete_and_fail() -> None:
        await store.delete(session.id)
        await real_redis.zadd(KEYS.user(USER), {session.id: session.created_at_ms})
        raise StoreUnavailable("the test interrupts the command")

    await real_redis.delete(KEYS.user(USER))
    redis_client = redis_client_for(real_redis)
    index_removal = IndexRemoval(redis_client, KEYS)
    index_repair = IndexRepair(
        Interrupted(redis_client, "add_to_index", before=delete_and_fail),
        KEYS,
        index_removal,
        owner_index_lifetime_ms=MINUTE_MS,
    )
    live_session = IndexedSession(session.id, AGENT, USER, str(session.created_at_ms).encode())

    await index_repair.repair([live_session], PartialFailure())

    assert await real_redis.exists(KEYS.user(USER)) == 0
