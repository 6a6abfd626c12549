"""While one node of a cluster without replicas is down, work on the other nodes continues."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import pytest

from service.errors import StoreUnavailable
from service.maintenance.index_repair import IndexRemoval, IndexRepair
from service.maintenance.lost_sessions import LostSessions
from service.maintenance.reconciler import Reconciler
from service.maintenance.startup_checks import StartupChecks
from service.maintenance.sweeper import Sweeper
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.redis_client.scripts import Command
from service.sessions.events import SessionEvents
from service.sessions.keys import SHARDS
from service.sessions.revocation import BulkRevocation, OwnerFilter
from tests.cluster_servers import ClusterServers, Node
from tests.conftest import new_session_events
from tests.counted import counted
from tests.redis_client.conftest import connected
from tests.redis_contents import KEYS

TIMEOUT_SECONDS = 2
MINUTE_MS = 60_000
PAST_MS, FUTURE_MS = 1_000_000_000_000, 4_000_000_000_000


class Location(NamedTuple):
    """A node of the cluster, with a shard, a user and an agent whose keys are on it."""

    node: Node
    shard: str
    user: str
    agent: str

    def session(self, number: int = 0) -> str:
        return f"{self.shard}{number:06x}-0d44-4b50-8888-8dd25736052a"


@pytest.fixture(scope="module")
def servers() -> Iterator[ClusterServers]:
    with tempfile.TemporaryDirectory() as folder:
        servers = ClusterServers(Path(folder))
        servers.start()
        yield servers
        servers.stop()


@pytest.fixture(autouse=True)
def restored(servers: ClusterServers) -> Iterator[None]:
    """Restart the lost node after each test, and delete all keys."""
    yield
    servers.restore()


@pytest.fixture
async def redis_client(servers: ClusterServers) -> AsyncIterator[RedisClient]:
    async with connected(servers.url, TIMEOUT_SECONDS) as client:
        yield client


@pytest.fixture
def lost(servers: ClusterServers) -> Location:
    """The node that a test stops."""
    return location_on(servers, servers.primaries[0])


@pytest.fixture
def other(servers: ClusterServers) -> Location:
    """A node that stays."""
    return location_on(servers, servers.primaries[1])


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def events(metrics: Metrics) -> SessionEvents:
    return new_session_events(metrics)


def location_on(servers: ClusterServers, node: Node) -> Location:
    shard = next(shard for shard in SHARDS if servers.owner_of_key(KEYS.expiry(shard)) is node)
    ids = [str(UUID(int=number, version=4)) for number in range(100)]
    user = next(user for user in ids if servers.owner_of_key(KEYS.user(user)) is node)
    agent = next(agent for agent in ids if servers.owner_of_key(KEYS.agent(agent)) is node)
    return Location(node, shard, user, agent)


def resume(servers: ClusterServers, node: Node) -> None:
    node.resume()
    servers.wait_until_settled()


def write_tombstone(session_id: str, owner: Location, expires_at_ms: int) -> list[Command]:
    """Commands that write the tombstone and the index entries of a session."""
    keys = KEYS.of(session_id)
    fields = ("agentId", owner.agent, "userId", owner.user, "expiresAt", expires_at_ms, "reason", "inactivity")
    indexes: list[Command] = [("ZADD", index, expires_at_ms, session_id) for index in keys[2:]]
    owner_indexes = KEYS.owner_indexes(owner.agent, owner.user)
    return [
        *indexes,
        ("HSET", keys.tombstone, *fields),
        ("PEXPIRE", keys.tombstone, MINUTE_MS),
        *(("ZADD", owner_index, PAST_MS, session_id) for owner_index in owner_indexes),
        *(("PEXPIRE", owner_index, MINUTE_MS) for owner_index in owner_indexes),
    ]


def write_session(session_id: str, owner: Location) -> list[Command]:
    key = KEYS.session(session_id)
    times = ("createdAt", PAST_MS, "expiresAt", FUTURE_MS)
    hash_ = ("HSET", key, "agentId", owner.agent, "userId", owner.user, *times)
    return [*write_tombstone(session_id, owner, FUTURE_MS), hash_, ("PEXPIRE", key, MINUTE_MS)]


async def expiry_index(redis_client: RedisClient, location: Location) -> list[bytes]:
    (ids,) = await redis_client.query(("ZRANGE", KEYS.expiry(location.shard), 0, -1))
    return list(ids)


async def ids_in(redis_client: RedisClient, owner_index: str) -> list[bytes]:
    (ids,) = await redis_client.query(("ZRANGE", owner_index, 0, -1))
    return list(ids)


# Maintenance


@pytest.mark.parametrize("is_paused", [False, True], ids=["killed", "paused"])
async def test_expired_sessions_on_other_nodes_are_swept(
    servers: ClusterServers,
    redis_client: RedisClient,
    lost: Location,
    other: Location,
    metrics: Metrics,
    is_paused: bool,
) -> None:
    sweeper = Sweeper(redis_client, KEYS, new_session_events(metrics), metrics, retention_ms=MINUTE_MS)
    await redis_client.execute(
        *write_tombstone(lost.session(), other, PAST_MS),
        *write_tombstone(other.session(1), other, PAST_MS),
        *write_tombstone(other.session(2), lost, PAST_MS),
        *write_tombstone(other.session(3), other._replace(agent=lost.agent), PAST_MS),
    )
    lost.node.pause() if is_paused else lost.node.kill()

    with pytest.raises(StoreUnavailable):
        await sweeper.sweep()

    with_owner_index_on_the_lost_node = {other.session(2).encode(), other.session(3).encode()}
    assert set(await expiry_index(redis_client, other)) == with_owner_index_on_the_lost_node
    assert sweeper.lag_seconds < MINUTE_MS
    assert counted(metrics.ended) == {"inactivity": 1}


async def test_sessions_with_an_owner_index_on_the_lost_node_are_swept_after_its_return(
    servers: ClusterServers, redis_client: RedisClient, lost: Location, other: Location, metrics: Metrics
) -> None:
    sweeper = Sweeper(redis_client, KEYS, new_session_events(metrics), metrics, retention_ms=MINUTE_MS)
    await redis_client.execute(*write_tombstone(other.session(), lost, PAST_MS))
    lost.node.pause()
    with pytest.raises(StoreUnavailable):
        await sweeper.sweep()
    resume(servers, lost.node)

    await sweeper.sweep()

    assert await expiry_index(redis_client, other) == []
    assert counted(metrics.ended) == {"inactivity": 1}


async def test_the_reconciler_restores_the_owner_indexes_of_other_nodes_and_continues(
    servers: ClusterServers,
    redis_client: RedisClient,
    lost: Location,
    other: Location,
    events: SessionEvents,
    metrics: Metrics,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.maintenance.reconciler.SHARDS", (lost.shard, other.shard))
    index_repair = IndexRepair(redis_client, KEYS, IndexRemoval(redis_client, KEYS), owner_index_lifetime_ms=MINUTE_MS)
    reconciler = Reconciler(redis_client, KEYS, index_repair, LostSessions(redis_client, KEYS, events), metrics)
    await redis_client.execute(
        *write_session(other.session(1), other), *write_session(other.session(2), other._replace(agent=lost.agent))
    )
    await redis_client.execute(("DEL", KEYS.user(other.user)), ("DEL", KEYS.agent(other.agent)))
    lost.node.pause()

    with pytest.raises(StoreUnavailable):
        await reconciler.reconcile_next_shard()
    with pytest.raises(StoreUnavailable):
        await reconciler.reconcile_next_shard()

    assert await ids_in(redis_client, KEYS.user(other.user)) == [other.session(1).encode(), other.session(2).encode()]
    assert await ids_in(redis_client, KEYS.agent(other.agent)) == [other.session(1).encode()]


async def test_lost_sessions_on_other_nodes_are_counted(
    servers: ClusterServers,
    redis_client: RedisClient,
    lost: Location,
    other: Location,
    events: SessionEvents,
    metrics: Metrics,
) -> None:
    lost_sessions = LostSessions(redis_client, KEYS, events)
    session_ids = [lost.session(1), other.session(1), lost.session(2), other.session(2)]
    await redis_client.execute(
        *chain.from_iterable(write_tombstone(session_id, other, FUTURE_MS) for session_id in session_ids)
    )
    lost.node.pause()

    for session_id in session_ids:
        lost_sessions.queue(session_id)
    await lost_sessions.aclose()

    assert counted(metrics.ended) == {"lost": 2}


async def test_ids_are_removed_from_owner_indexes_of_other_nodes_and_later_from_the_rest(
    servers: ClusterServers, redis_client: RedisClient, lost: Location, other: Location
) -> None:
    index_removal = IndexRemoval(redis_client, KEYS)
    await redis_client.execute(
        *write_tombstone(other.session(1), other, PAST_MS), *write_tombstone(lost.session(1), other, PAST_MS)
    )
    await redis_client.execute(*write_tombstone(other.session(2), lost, PAST_MS))
    index_removal.queue_ended(other.session(2), lost.agent, lost.user)
    index_removal.queue_ended(lost.session(1), other.agent, other.user)
    index_removal.queue_ended(other.session(1), other.agent, other.user)
    lost.node.pause()

    with pytest.raises(StoreUnavailable):
        await index_removal.process_queue()
    while_lost = await ids_in(redis_client, KEYS.user(other.user))
    resume(servers, lost.node)
    await index_removal.process_queue()

    assert while_lost == [lost.session(1).encode()]
    assert await ids_in(redis_client, KEYS.user(other.user)) == []
    assert await ids_in(redis_client, KEYS.user(lost.user)) == []


def checked_nodes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "service.maintenance.startup_checks"]


async def test_available_nodes_are_checked_and_the_lost_node_after_its_return(
    servers: ClusterServers,
    redis_client: RedisClient,
    lost: Location,
    events: SessionEvents,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    checks = StartupChecks(redis_client, KEYS, events)
    lost.node.pause()
    with pytest.raises(StoreUnavailable):
        await checks.run()
    checked_at_first = checked_nodes(caplog)
    resume(servers, lost.node)

    await checks.run()
    await checks.run()

    checks_of_lost_node = [message for message in checked_nodes(caplog) if f":{lost.node.port}" in message]
    assert len(checked_at_first) == 2
    assert len(checks_of_lost_node) == 1
    assert checks_of_lost_node[0] not in checked_at_first


# Bulk revocation


async def test_revoked_sessions_on_other_nodes_are_counted_and_removed_from_owner_indexes(
    servers: ClusterServers,
    redis_client: RedisClient,
    lost: Location,
    other: Location,
    events: SessionEvents,
    metrics: Metrics,
) -> None:
    sessions = [other.session(1), lost.session(1), other.session(2), lost.session(2)]
    await redis_client.execute(*chain.from_iterable(write_session(session_id, other) for session_id in sessions))
    lost.node.pause()

    with pytest.raises(StoreUnavailable):
        await BulkRevocation(redis_client, KEYS, events).revoke(OwnerFilter(None, other.user))

    on_the_lost_node = [lost.session(1).encode(), lost.session(2).encode()]
    assert counted(metrics.ended) == {"revoked": 2}
    assert await ids_in(redis_client, KEYS.user(other.user)) == on_the_lost_node
    assert await ids_in(redis_client, KEYS.agent(other.agent)) == on_the_lost_node


async def test_a_revocation_succeeds_if_only_another_owner_index_is_lost_and_that_index_is_cleaned_later(
    servers: ClusterServers, redis_client: RedisClient, lost: Location, other: Location, events: SessionEvents
) -> None:
    index_removal = IndexRemoval(redis_client, KEYS)
    events.on_index_entry_left = index_removal.queue_ended
    await redis_client.execute(*write_session(other.session(), other._replace(agent=lost.agent)))
    lost.node.pause()

    revoked = await BulkRevocation(redis_client, KEYS, events).revoke(OwnerFilter(None, other.user))
    resume(servers, lost.node)
    await index_removal.process_queue()

    assert (revoked.number, revoked.remainder) == (1, None)
    assert await ids_in(redis_client, KEYS.agent(lost.agent)) == []
