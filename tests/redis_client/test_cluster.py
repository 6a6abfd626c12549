"""A lane over a real Cluster: where keys lie, slots that move, servers that die, and what of it is felt."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from service.errors import StoreUnavailable
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.redis_client.factory import client_factory
from service.redis_client.monitor import StoreMonitor
from service.sessions.keys import SHARDS, Keys
from service.sessions.scripts import SCRIPTS
from service.sessions.session import Session
from service.sessions.store import SessionStore
from service.settings import Settings
from tests.cluster_servers import ClusterServers, Logins, Node
from tests.conftest import StartReplica, create_session, store_on
from tests.redis_server import wait_until

KEYS = Keys("")
TIMEOUT_SECONDS = 1


@pytest.fixture(scope="module")
def servers() -> Iterator[ClusterServers]:
    """A cluster to be taken apart, and put together again by the test that did."""
    with tempfile.TemporaryDirectory() as folder:
        servers = ClusterServers(Path(folder), replicas=True)
        servers.start()
        yield servers
        servers.stop()


@pytest.fixture
async def redis_client(servers: ClusterServers) -> AsyncIterator[RedisClient]:
    source = client_factory(servers.url, TIMEOUT_SECONDS, StoreMonitor(Metrics()), SCRIPTS)
    redis_client = source.new_client()
    yield redis_client
    await redis_client.aclose()
    await source.aclose()


@pytest.fixture
def store(redis_client: RedisClient, settings: Settings) -> SessionStore:
    return store_on(redis_client, settings)


async def created(store: SessionStore, number: int) -> list[Session]:
    return await asyncio.gather(*(create_session(store) for _ in range(number)))


def slot_of(servers: ClusterServers, session: Session) -> int:
    return servers.slot_of(KEYS.session(session.id))


async def on(store: SessionStore, servers: ClusterServers, node: Node) -> Session:
    """A session that lies there."""
    while True:
        session = await create_session(store)
        if servers.owner_of(slot_of(servers, session)) is node:
            return session


def test_the_shards_spread_over_the_servers(cluster_servers: ClusterServers) -> None:
    owners = [cluster_servers.owner_of(cluster_servers.slot_of(KEYS.expiry(shard))) for shard in SHARDS]

    assert {node.port for node in owners} == {node.port for node in cluster_servers.servers}
    assert min(owners.count(node) for node in cluster_servers.servers) >= 64


async def test_sessions_lie_on_all_servers(store: SessionStore, servers: ClusterServers) -> None:
    await created(store, 60)

    assert all(node.command("DBSIZE") for node in servers.primaries)


async def test_one_of_its_servers_is_enough_to_find_the_cluster(servers: ClusterServers, settings: Settings) -> None:
    source = client_factory(
        f"redis+cluster://127.0.0.1:1,127.0.0.1:{servers.servers[1].port}", 1, StoreMonitor(Metrics()), SCRIPTS
    )
    redis_client = source.new_client()

    assert len(await redis_client.broadcast(("TIME",))) == 3

    await redis_client.aclose()
    await source.aclose()


async def test_a_slot_that_has_moved_is_found(store: SessionStore, servers: ClusterServers) -> None:
    session = (await created(store, 1))[0]
    slot = slot_of(servers, session)
    old = servers.owner_of(slot)
    with servers.migrating(slot, to=next(node for node in servers.primaries if node is not old)):
        pass

    assert (await store.get(session.id)).id == session.id
    assert (await store.renew(session.id)).renewal_count == 1
    assert servers.owner_of(slot) is not old


async def test_a_session_that_has_gone_ahead_of_its_slot_is_asked_for_where_it_is(
    store: SessionStore, servers: ClusterServers
) -> None:
    session = (await created(store, 1))[0]
    slot = slot_of(servers, session)
    other = next(node for node in servers.primaries if node is not servers.owner_of(slot))
    with servers.migrating(slot, to=other) as migration:
        migration.move_rest()

        assert (await store.get(session.id)).id == session.id
        assert (await store.renew(session.id)).renewal_count == 1


async def test_a_session_of_which_a_part_has_gone_ahead_is_out_of_reach_until_the_rest_has(
    store: SessionStore, servers: ClusterServers
) -> None:
    session = (await created(store, 1))[0]
    slot = slot_of(servers, session)
    other = next(node for node in servers.primaries if node is not servers.owner_of(slot))
    with servers.migrating(slot, to=other) as migration:
        migration.move_key(KEYS.session(session.id))

        assert (await store.get(session.id)).id == session.id
        with pytest.raises(StoreUnavailable):
            await store.renew(session.id)

    assert (await store.renew(session.id)).renewal_count == 1


async def test_after_a_failover_changes_go_to_the_new_primary(store: SessionStore, servers: ClusterServers) -> None:
    session = (await created(store, 1))[0]
    servers.fail_over(servers.owner_of(slot_of(servers, session)))

    assert (await store.renew(session.id)).renewal_count == 1


async def test_a_server_that_is_gone_costs_only_its_own_sessions_until_its_replica_takes_over(
    store: SessionStore, servers: ClusterServers
) -> None:
    gone = servers.primaries[0]
    its, others = await on(store, servers, gone), await on(store, servers, servers.primaries[1])
    gone.kill()

    with pytest.raises(StoreUnavailable):
        await store.get(its.id)
    assert (await store.get(others.id)).id == others.id

    servers.wait_until_served(slot_of(servers, its))
    assert (await until_answered(store, its)).id == its.id
    gone.start()
    servers.wait_until_settled()


async def until_answered(store: SessionStore, session: Session) -> Session:
    """What it answers once where its slots are is known again."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await store.get(session.id)
            except StoreUnavailable:
                await asyncio.sleep(0.02)


async def test_a_server_that_is_silent_holds_up_no_other(store: SessionStore, servers: ClusterServers) -> None:
    silent = servers.primaries[0]
    its, others = await on(store, servers, silent), await on(store, servers, servers.primaries[1])
    silent.pause()
    try:
        asked = asyncio.ensure_future(store.get(its.id))
        answers = [(await store.get(others.id)).id for _ in range(20)]

        assert answers == [others.id] * 20
        assert not asked.done()
        with pytest.raises(StoreUnavailable):
            await asked
    finally:
        silent.resume()


async def test_users_are_let_in(data_dir: Path, settings: Settings) -> None:
    servers = ClusterServers(data_dir, logins=Logins())
    servers.start()
    source = client_factory(servers.url, 1, StoreMonitor(Metrics()), SCRIPTS)
    redis_client = source.new_client()

    session = await create_session(store_on(redis_client, settings))

    assert await redis_client.query(("EXISTS", KEYS.session(session.id))) == [1]
    await redis_client.aclose()
    await source.aclose()
    servers.stop()


async def test_a_cluster_that_gets_its_slots_later_is_found_then(data_dir: Path, settings: Settings) -> None:
    node = Node(data_dir, {}, None)
    node.start()
    source = client_factory(f"redis+cluster://127.0.0.1:{node.port}", 1, StoreMonitor(Metrics()), SCRIPTS)
    redis_client = source.new_client()
    store = store_on(redis_client, settings)
    with pytest.raises(StoreUnavailable):
        await create_session(store)
    assert await redis_client.broadcast(("PING",)) == {}

    node.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    wait_until(node.is_settled, "it takes itself for whole")

    async with asyncio.timeout(10):
        while not await redis_client.broadcast(("PING",)):
            continue
    assert (await create_session(store)).renewal_count == 0
    await redis_client.aclose()
    await source.aclose()
    node.stop()


def test_an_account_that_may_not_ask_where_slots_are_is_told_of(
    servers: ClusterServers, start_replica: StartReplica
) -> None:
    for node in servers.servers:
        node.command("ACL", "SETUSER", "lost", "on", ">pw", "~*", "+@all", "-cluster")

    replica = start_replica(REDIS_URL=servers.url.replace("://", "://lost:pw@"))

    line = replica.line_with("no cluster node returns the slot map")
    assert "NOPERM" in line
    assert "(to CLUSTER SLOTS)" in line
