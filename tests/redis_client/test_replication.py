"""Writes wait for replicas (SESSION_WAIT_REPLICAS), and reads do not wait behind them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import cast

import pytest
from redis.asyncio import Redis

from service.errors import StoreUnavailable
from service.redis_client.batch import Replication
from service.redis_client.client import RedisClient
from service.redis_client.errors import UnderReplicated
from service.sessions.idempotency import IdempotencyKey
from service.sessions.keys import Keys
from service.sessions.session import NewSession
from service.sessions.store import SessionStore
from service.settings import Settings
from service.settings.redis_url import Kind
from tests.attempt import attempt
from tests.conftest import AGENT, USER, create_session, new_session_store
from tests.redis_client.conftest import connected
from tests.redis_contents import command_counts
from tests.sentinel_servers import SentinelServers

KEY = IdempotencyKey("web", "8e03978e-40d5-43e8-bc93-6894a57f9324")
NEW_SESSION = NewSession(AGENT, USER, {}, b"{}")
KEYS = Keys("")

Pause = Callable[[], None]


@pytest.fixture
def kind() -> Kind:
    return "sentinel"


@pytest.fixture
async def redis_client(redis_url: str, real_redis: Redis) -> AsyncIterator[RedisClient]:
    async with connected(redis_url, 2, Replication(1, 200)) as client:
        yield client


@pytest.fixture
def pause_replicas(sentinel_servers: SentinelServers) -> Iterator[Pause]:
    """Pauses all replicas until the test ends."""
    replicas = sentinel_servers.replicas

    def pause() -> None:
        for replica in replicas:
            replica.pause()

    yield pause
    resume_replicas(sentinel_servers)


def resume_replicas(servers: SentinelServers) -> None:
    for replica in servers.replicas:
        replica.resume()
    servers.wait_until_settled()


def copies_of(session_id: str, servers: SentinelServers) -> int:
    """The number of replicas that have a session."""
    return sum(bool(replica.command("EXISTS", KEYS.session(session_id))) for replica in servers.replicas)


async def test_a_session_is_on_a_replica_when_its_creation_returns(
    store: SessionStore, sentinel_servers: SentinelServers
) -> None:
    session = await create_session(store)

    assert copies_of(session.id, sentinel_servers) >= 1


async def test_a_write_that_no_replica_acknowledges_in_time_is_unavailable(
    store: SessionStore, pause_replicas: Pause, real_redis: Redis
) -> None:
    session = await create_session(store)
    pause_replicas()

    with pytest.raises(StoreUnavailable) as error:
        await store.renew(session.id)

    assert error.value.cause.startswith("0 of 1 replicas acknowledged a write within 200 ms")
    assert await real_redis.hget(KEYS.session(session.id), "renewalCount") == b"1"


async def test_reads_do_not_wait_for_replicas(store: SessionStore, pause_replicas: Pause) -> None:
    session = await create_session(store)
    pause_replicas()
    renewal = asyncio.ensure_future(store.renew(session.id))

    await asyncio.sleep(0)
    assert (await store.get(session.id)).id == session.id
    assert not renewal.done()

    with pytest.raises(StoreUnavailable):
        await renewal


async def test_concurrent_writes_share_a_wait(store: SessionStore, real_redis: Redis) -> None:
    await create_session(store)
    before = await command_counts(real_redis)

    await asyncio.gather(*(create_session(store) for _ in range(40)))

    assert 1 <= (await command_counts(real_redis) - before)["wait"] <= 3


async def test_a_deletion_without_replicas_is_executed_and_reported_as_under_replicated(
    store: SessionStore, pause_replicas: Pause
) -> None:
    session = await create_session(store)
    pause_replicas()

    with pytest.raises(UnderReplicated):
        await store.delete(session.id)

    assert await attempt(store.delete, session.id) == "missing"


async def test_an_update_of_another_revision_does_not_wait_for_replicas(
    store: SessionStore, pause_replicas: Pause
) -> None:
    session = await create_session(store)
    pause_replicas()

    assert await attempt(store.update_timeout, session.id, {}, frozenset([b"2"])) == "other_revision"


# Caps


async def test_an_eviction_without_replicas_ends_the_session_and_keeps_no_place(
    redis_client: RedisClient, pause_replicas: Pause, real_redis: Redis
) -> None:
    store = new_session_store(redis_client, Settings(session_max_per_user=1, session_cap_policy="evict"))
    session = await create_session(store)
    pause_replicas()

    with pytest.raises(StoreUnavailable):
        await create_session(store)

    assert await attempt(store.get, session.id) == "missing"
    assert await real_redis.zcard(KEYS.user(USER)) == 0


async def test_a_creation_over_the_cap_does_not_wait_for_replicas(
    redis_client: RedisClient, pause_replicas: Pause
) -> None:
    store = new_session_store(redis_client, Settings(session_max_per_user=1))
    await create_session(store)
    assert await attempt(create_session, store) == "full"
    pause_replicas()

    assert await attempt(create_session, store) == "full"


# Idempotent creation


async def test_a_session_created_with_an_idempotency_key_stays_although_it_is_under_replicated(
    store: SessionStore, pause_replicas: Pause, real_redis: Redis
) -> None:
    pause_replicas()

    with pytest.raises(UnderReplicated):
        await store.create(NEW_SESSION, KEY)

    (session_id,) = cast(list[bytes], await real_redis.zrange(KEYS.user(USER), 0, -1))
    assert (await store.get(session_id.decode())).id == session_id.decode()


async def test_a_repeated_creation_returns_the_session_after_replicas_have_it(
    store: SessionStore, pause_replicas: Pause, sentinel_servers: SentinelServers
) -> None:
    pause_replicas()
    with pytest.raises(UnderReplicated):
        await store.create(NEW_SESSION, KEY)
    with pytest.raises(UnderReplicated):
        await store.create(NEW_SESSION, KEY)
    resume_replicas(sentinel_servers)

    created = await store.create(NEW_SESSION, KEY)

    assert created.is_replay
    assert copies_of(created.session.id, sentinel_servers) >= 1
