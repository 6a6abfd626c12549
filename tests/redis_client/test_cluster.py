"""The client follows moved slots, failovers and node failures of a real cluster, with authentication."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from service.errors import StoreUnavailable
from service.redis_client.client import RedisClient
from service.sessions.keys import SHARDS, Keys
from service.sessions.session import Session
from service.sessions.store import SessionStore
from service.settings import Settings
from tests.cluster_servers import ClusterServers, Logins, Node
from tests.conftest import create_session, new_session_store
from tests.redis_client.conftest import connected
from tests.redis_server import wait_until

KEYS = Keys("")
TIMEOUT_SECONDS = 2


@pytest.fixture(scope="module")
def servers() -> Iterator[ClusterServers]:
    """A cluster with replicas. A test that stops a node starts it again."""
    with tempfile.TemporaryDirectory() as folder:
        servers = ClusterServers(Path(folder), replicas=True, logins=Logins())
        servers.start()
        yield servers
        servers.stop()


@pytest.fixture
async def redis_client(servers: ClusterServers) -> AsyncIterator[RedisClient]:
    async with connected(servers.url, TIMEOUT_SECONDS) as client:
        yield client


@pytest.fixture
def store(redis_client: RedisClient, settings: Settings) -> SessionStore:
    return new_session_store(redis_client, settings)


def slot_of(servers: ClusterServers, session: Session) -> int:
    return servers.slot_of(KEYS.session(session.id))


def other_primary(servers: ClusterServers, slot: int) -> Node:
    owner = servers.owner_of(slot)
    return next(node for node in servers.primaries if node is not owner)


async def session_on(store: SessionStore, servers: ClusterServers, node: Node) -> Session:
    """Create sessions until one is on this node."""
    while True:
        session = await create_session(store)
        if servers.owner_of(slot_of(servers, session)) is node:
            return session


async def get_when_available(store: SessionStore, session: Session) -> Session:
    async with asyncio.timeout(30):
        while True:
            try:
                return await store.get(session.id)
            except StoreUnavailable:
                await asyncio.sleep(0.02)


def test_the_shards_are_spread_over_all_nodes(servers: ClusterServers) -> None:
    owners = [servers.owner_of(servers.slot_of(KEYS.expiry(shard))) for shard in SHARDS[::4]]

    assert set(owners) == set(servers.primaries)
    assert min(owners.count(node) for node in servers.primaries) >= 12


async def test_sessions_are_stored_on_all_nodes(store: SessionStore, servers: ClusterServers) -> None:
    await asyncio.gather(*(create_session(store) for _ in range(60)))

    assert all(node.command("DBSIZE") for node in servers.primaries)


async def test_a_connection_without_a_login_is_rejected(servers: ClusterServers) -> None:
    async with connected(servers.url.replace(f"{Logins().service}", ""), TIMEOUT_SECONDS) as client:
        with pytest.raises(StoreUnavailable):
            await client.query(("ZCARD", KEYS.created("ab")))


async def test_one_reachable_node_is_enough_to_find_the_cluster(servers: ClusterServers) -> None:
    address = f"127.0.0.1:1,127.0.0.1:{servers.servers[1].port}"

    async with connected(f"redis+cluster://{Logins().service}{address}", TIMEOUT_SECONDS) as client:
        assert len(await client.broadcast(("TIME",))) == 3


async def test_an_account_that_may_not_read_the_slot_map_is_reported(
    servers: ClusterServers, caplog: pytest.LogCaptureFixture
) -> None:
    for node in servers.servers:
        node.command("ACL", "SETUSER", "restricted", "on", ">pw", "~*", "+@all", "-cluster")

    async with connected(servers.url.replace(f"{Logins().service}", "restricted:pw@"), TIMEOUT_SECONDS) as client:
        with pytest.raises(StoreUnavailable):
            await client.query(("ZCARD", KEYS.created("ab")))

    (message,) = [message for message in caplog.messages if "no cluster node returns the slot map" in message]
    assert "NOPERM" in message
    assert "(to CLUSTER SLOTS)" in message


async def test_a_cluster_that_is_formed_later_is_found(data_dir: Path, settings: Settings) -> None:
    node = Node(data_dir, {}, None)
    node.start()
    async with connected(f"redis+cluster://127.0.0.1:{node.port}", TIMEOUT_SECONDS) as client:
        with pytest.raises(StoreUnavailable):
            await create_session(new_session_store(client, settings))
        assert await client.broadcast(("PING",)) == {}

        node.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        wait_until(node.is_settled, "the cluster is up")

        async with asyncio.timeout(30):
            while not await client.broadcast(("PING",)):
                continue
        assert (await create_session(new_session_store(client, settings))).renewal_count == 0
    node.stop()


# Slots that move


async def test_a_slot_that_moved_is_found(store: SessionStore, servers: ClusterServers) -> None:
    session = await create_session(store)
    slot = slot_of(servers, session)
    target = other_primary(servers, slot)
    with servers.migrating(slot, to=target):
        pass

    assert (await store.get(session.id)).id == session.id
    assert (await store.renew(session.id)).renewal_count == 1
    assert servers.owner_of(slot) is target


async def test_a_session_that_has_moved_ahead_of_its_slot_is_found(
    store: SessionStore, servers: ClusterServers
) -> None:
    session = await create_session(store)
    slot = slot_of(servers, session)
    with servers.migrating(slot, to=other_primary(servers, slot)) as migration:
        migration.move_rest()

        assert (await store.get(session.id)).id == session.id
        assert (await store.renew(session.id)).renewal_count == 1


async def test_a_session_with_keys_on_two_nodes_is_unavailable_until_all_have_moved(
    store: SessionStore, servers: ClusterServers
) -> None:
    session = await create_session(store)
    slot = slot_of(servers, session)
    with servers.migrating(slot, to=other_primary(servers, slot)) as migration:
        migration.move_key(KEYS.session(session.id))

        assert (await store.get(session.id)).id == session.id
        with pytest.raises(StoreUnavailable):
            await store.renew(session.id)

    assert (await store.renew(session.id)).renewal_count == 1


# Nodes that fail


async def test_writes_go_to_the_new_primary_after_a_failover(store: SessionStore, servers: ClusterServers) -> None:
    session = await create_session(store)
    servers.fail_over(servers.owner_of(slot_of(servers, session)))

    assert (await store.renew(session.id)).renewal_count == 1


async def test_a_killed_node_affects_only_its_own_sessions_until_its_replica_takes_over(
    store: SessionStore, servers: ClusterServers
) -> None:
    killed, other = servers.primaries[:2]
    affected, unaffected = await session_on(store, servers, killed), await session_on(store, servers, other)
    killed.kill()

    with pytest.raises(StoreUnavailable):
        await store.get(affected.id)
    assert (await store.get(unaffected.id)).id == unaffected.id

    servers.wait_until_served(slot_of(servers, affected))
    assert (await get_when_available(store, affected)).id == affected.id
    killed.start()
    servers.wait_until_settled()


async def test_an_unresponsive_node_does_not_delay_calls_to_other_nodes(
    store: SessionStore, servers: ClusterServers
) -> None:
    paused, other = servers.primaries[:2]
    affected, unaffected = await session_on(store, servers, paused), await session_on(store, servers, other)
    paused.pause()
    try:
        waiting = asyncio.ensure_future(store.get(affected.id))
        results = [(await store.get(unaffected.id)).id for _ in range(20)]

        assert results == [unaffected.id] * 20
        assert not waiting.done()
        with pytest.raises(StoreUnavailable):
            await waiting
    finally:
        paused.resume()
