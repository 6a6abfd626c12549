"""Changes that wait for replicas: answered when those have them, else refused, and no read waits behind them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import cast

import pytest
from redis.asyncio import Redis

from service.errors import StoreUnavailable
from service.observability.metrics import Metrics
from service.redis_client.batch import Replication
from service.redis_client.client import RedisClient
from service.redis_client.errors import UnderReplicated
from service.redis_client.factory import client_factory
from service.redis_client.monitor import StoreMonitor
from service.sessions.idempotency import IdempotencyKey
from service.sessions.keys import Keys
from service.sessions.scripts import SCRIPTS
from service.sessions.session import NewSession
from service.sessions.store import SessionStore
from service.settings import Settings
from service.settings.redis_url import Kind
from tests.attempt import attempt
from tests.conftest import AGENT, USER, create_session, store_on
from tests.sentinel_servers import SentinelServers
from tests.sessions.evidence import commands_seen

KEY = IdempotencyKey("web", "8e03978e-40d5-43e8-bc93-6894a57f9324")
WISH = NewSession(AGENT, USER, {}, b"{}")


@pytest.fixture
def kind() -> Kind:
    return "sentinel"


@pytest.fixture
async def redis_client(redis_url: str, real_redis: Redis) -> AsyncIterator[RedisClient]:
    source = client_factory(redis_url, 2, StoreMonitor(Metrics()), SCRIPTS)
    redis_client = source.new_client(Replication(1, 200))
    yield redis_client
    await redis_client.aclose()
    await source.aclose()


@pytest.fixture
def silence(sentinel_servers: SentinelServers) -> Iterator[None]:
    """Replicas that hear nothing more."""
    replicas = sentinel_servers.replicas
    for replica in replicas:
        replica.pause()
    yield
    for replica in replicas:
        replica.resume()
    sentinel_servers.wait_until_settled()


async def test_what_has_been_answered_is_on_a_replica(store: SessionStore, sentinel_servers: SentinelServers) -> None:
    session = await create_session(store)

    key = Keys("").session(session.id)
    assert sum(bool(replica.command("EXISTS", key)) for replica in sentinel_servers.replicas) >= 1


async def test_a_change_that_no_replica_has_in_time_is_refused(
    store: SessionStore, request: pytest.FixtureRequest, real_redis: Redis
) -> None:
    session = await create_session(store)
    request.getfixturevalue("silence")

    with pytest.raises(StoreUnavailable) as refusal:
        await store.renew(session.id)

    assert refusal.value.cause.startswith("0 of 1 replicas acknowledged a write within 200 ms")
    assert await real_redis.hget(Keys("").session(session.id), "renewalCount") == b"1"


async def test_reads_go_on_meanwhile(store: SessionStore, request: pytest.FixtureRequest) -> None:
    session = await create_session(store)
    request.getfixturevalue("silence")
    renewal = asyncio.ensure_future(store.renew(session.id))

    await asyncio.sleep(0)
    assert (await store.get(session.id)).id == session.id
    assert not renewal.done()

    with pytest.raises(StoreUnavailable):
        await renewal


async def test_changes_of_many_share_one_wait(store: SessionStore, real_redis: Redis) -> None:
    await create_session(store)
    before = await commands_seen(real_redis)

    await asyncio.gather(*(create_session(store) for _ in range(40)))

    assert 1 <= (await commands_seen(real_redis) - before)["wait"] <= 3


async def test_a_deletion_that_no_replica_has_in_time_is_done_and_an_unknown_session_still_unknown(
    store: SessionStore, request: pytest.FixtureRequest
) -> None:
    session = await create_session(store)
    request.getfixturevalue("silence")

    with pytest.raises(UnderReplicated):
        await store.delete(session.id)

    assert await attempt(store.delete, session.id) == "missing"


async def test_a_change_that_is_refused_for_the_revision_waits_for_no_replica(
    store: SessionStore, request: pytest.FixtureRequest
) -> None:
    session = await create_session(store)
    request.getfixturevalue("silence")

    assert await attempt(store.update_timeout, session.id, {}, frozenset([b"2"])) == "other_revision"


async def test_one_that_is_evicted_and_no_replica_hears_of_has_ended_and_has_no_place(
    redis_client: RedisClient, request: pytest.FixtureRequest, real_redis: Redis
) -> None:
    store = store_on(redis_client, Settings(session_max_per_user=1, session_cap_policy="evict"))
    session = await create_session(store)
    request.getfixturevalue("silence")

    with pytest.raises(StoreUnavailable):
        await create_session(store)

    assert await attempt(store.get, session.id) == "missing"
    assert await real_redis.zcard(Keys("").user(USER)) == 0


async def test_one_that_is_denied_waits_for_no_replica(
    redis_client: RedisClient, request: pytest.FixtureRequest, real_redis: Redis
) -> None:
    store = store_on(redis_client, Settings(session_max_per_user=1))
    await create_session(store)
    assert await attempt(create_session, store) == "full"
    request.getfixturevalue("silence")

    assert await attempt(create_session, store) == "full"


async def test_one_whom_a_repeated_creation_may_have_been_told_of_is_not_taken_back(
    store: SessionStore, silence: None, real_redis: Redis
) -> None:
    with pytest.raises(UnderReplicated):
        await store.create(WISH, KEY)

    (session_id,) = cast(list[bytes], await real_redis.zrange(Keys("").user(USER), 0, -1))
    assert (await store.get(session_id.decode())).id == session_id.decode()


async def test_a_repeated_creation_is_answered_once_replicas_have_the_session(
    store: SessionStore, request: pytest.FixtureRequest, sentinel_servers: SentinelServers
) -> None:
    request.getfixturevalue("silence")
    with pytest.raises(UnderReplicated):
        await store.create(WISH, KEY)
    with pytest.raises(UnderReplicated):
        await store.create(WISH, KEY)
    for replica in sentinel_servers.replicas:
        replica.resume()
    sentinel_servers.wait_until_settled()

    created = await store.create(WISH, KEY)

    assert created.is_replay
    key = Keys("").session(created.session.id)
    assert sum(bool(replica.command("EXISTS", key)) for replica in sentinel_servers.replicas) >= 1
