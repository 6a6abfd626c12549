"""A Cluster one of whose servers is gone, with nobody to take its place: what lies on the others goes on."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import pytest

from service.errors import StoreUnavailable
from service.maintenance.index_removal import IndexRemoval
from service.maintenance.index_repair import IndexRepair
from service.maintenance.lost_sessions import LostSessions
from service.maintenance.reconciler import Reconciler
from service.maintenance.startup_checks import StartupChecks
from service.maintenance.sweeper import Sweeper
from service.observability.metrics import Metrics
from service.rate_limit.buckets import Buckets
from service.rate_limit.limit import Limit, RateLimitStatus
from service.redis_client.client import RedisClient
from service.redis_client.factory import client_factory
from service.redis_client.monitor import StoreMonitor
from service.redis_client.scripts import Command
from service.sessions.events import SessionEvents
from service.sessions.keys import SHARDS
from service.sessions.revocation import BulkRevocation, OwnerFilter
from service.sessions.scripts import SCRIPTS
from service.settings.rate_limits import Rate
from tests.cluster_servers import ClusterServers, Node
from tests.conftest import AGENT, USER, StartReplica, events_into
from tests.counted import counted
from tests.maintenance.test_startup_checks import said_by
from tests.sessions.evidence import KEYS
from tests.test_walkthrough import SESSIONS

TIMEOUT_SECONDS = 1
MINUTE_MS = 60_000
PAST_MS, FUTURE_MS = 1_000_000_000_000, 4_000_000_000_000


class Place(NamedTuple):
    """A server of the cluster, with a shard, a user and an agent that lie there."""

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
def whole(servers: ClusterServers) -> Iterator[None]:
    """The cluster is whole and empty before each test, and again after it."""
    yield
    for node in servers.servers:
        node.resume() if node.is_running else node.start()
    servers.wait_until_settled()
    for node in servers.servers:
        node.command("FLUSHALL")


@pytest.fixture
async def redis_client(servers: ClusterServers) -> AsyncIterator[RedisClient]:
    source = client_factory(servers.url, TIMEOUT_SECONDS, StoreMonitor(Metrics()), SCRIPTS)
    redis_client = source.new_client()
    yield redis_client
    await redis_client.aclose()
    await source.aclose()


@pytest.fixture
def lost(servers: ClusterServers) -> Place:
    """The server that is lost in a test, once it says so."""
    return place_on(servers, servers.primaries[0])


@pytest.fixture
def left(servers: ClusterServers) -> Place:
    """One that stays."""
    return place_on(servers, servers.primaries[1])


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def events(metrics: Metrics) -> SessionEvents:
    return events_into(metrics)


def place_on(servers: ClusterServers, node: Node) -> Place:
    shard = next(shard for shard in SHARDS if owner_of(servers, KEYS.expiry(shard)) is node)
    ids = [str(UUID(int=number, version=4)) for number in range(100)]
    user = next(user for user in ids if owner_of(servers, KEYS.user(user)) is node)
    agent = next(agent for agent in ids if owner_of(servers, KEYS.agent(agent)) is node)
    return Place(node, shard, user, agent)


def owner_of(servers: ClusterServers, key: str) -> Node:
    return servers.owner_of(servers.slot_of(key))


def lose(servers: ClusterServers, node: Node) -> None:
    """Kill it, and wait until the others have noticed."""
    node.kill()
    servers.wait_until_down(node)


def find(servers: ClusterServers, node: Node) -> None:
    """Start it again, and wait until the others have noticed."""
    node.start()
    servers.wait_until_settled()


def tombstone(session_id: str, owners: Place, expires_at_ms: int) -> list[Command]:
    """What a session leaves that ends at an instant and is listed."""
    keys = KEYS.of(session_id)
    fields = ("agentId", owners.agent, "userId", owners.user, "expiresAt", expires_at_ms, "reason", "inactivity")
    indexes: list[Command] = [("ZADD", index, expires_at_ms, session_id) for index in keys[2:]]
    owner_indexes = KEYS.owner_indexes(owners.agent, owners.user)
    return [
        *indexes,
        ("HSET", keys.tombstone, *fields),
        ("PEXPIRE", keys.tombstone, MINUTE_MS),
        *(("ZADD", owner_index, PAST_MS, session_id) for owner_index in owner_indexes),
        *(("PEXPIRE", owner_index, MINUTE_MS) for owner_index in owner_indexes),
    ]


def alive(session_id: str, owners: Place) -> list[Command]:
    key = KEYS.session(session_id)
    times = ("createdAt", PAST_MS, "expiresAt", FUTURE_MS)
    hash_ = ("HSET", key, "agentId", owners.agent, "userId", owners.user, *times)
    return [*tombstone(session_id, owners, FUTURE_MS), hash_, ("PEXPIRE", key, MINUTE_MS)]


async def in_shard(redis_client: RedisClient, place: Place) -> list[bytes]:
    (found,) = await redis_client.query(("ZRANGE", KEYS.expiry(place.shard), 0, -1))
    return list(found)


async def listed_by(redis_client: RedisClient, owner_index: str) -> list[bytes]:
    (found,) = await redis_client.query(("ZRANGE", owner_index, 0, -1))
    return list(found)


# Work beside the requests


@pytest.mark.parametrize("is_silent", [False, True])
async def test_what_has_ended_elsewhere_is_swept(
    servers: ClusterServers, redis_client: RedisClient, lost: Place, left: Place, metrics: Metrics, is_silent: bool
) -> None:
    sweeper = Sweeper(redis_client, KEYS, events_into(metrics), metrics, retention_ms=MINUTE_MS)
    await redis_client.execute(
        *tombstone(lost.session(), left, PAST_MS),
        *tombstone(left.session(1), left, PAST_MS),
        *tombstone(left.session(2), lost, PAST_MS),
        *tombstone(left.session(3), left._replace(agent=lost.agent), PAST_MS),
    )
    lost.node.pause() if is_silent else lose(servers, lost.node)

    with pytest.raises(StoreUnavailable):
        await sweeper.round()

    listed_on_the_lost_one = {left.session(2).encode(), left.session(3).encode()}
    assert set(await in_shard(redis_client, left)) == listed_on_the_lost_one
    assert sweeper.lag_seconds < MINUTE_MS
    assert counted(metrics.ended) == {"inactivity": 1}


async def test_what_waited_for_it_is_swept_when_it_is_back(
    servers: ClusterServers, redis_client: RedisClient, lost: Place, left: Place, metrics: Metrics
) -> None:
    sweeper = Sweeper(redis_client, KEYS, events_into(metrics), metrics, retention_ms=MINUTE_MS)
    await redis_client.execute(*tombstone(left.session(), lost, PAST_MS))
    lost.node.pause()
    with pytest.raises(StoreUnavailable):
        await sweeper.round()
    lost.node.resume()

    await sweeper.round()

    assert await in_shard(redis_client, left) == []
    assert counted(metrics.ended) == {"inactivity": 1}


async def test_the_reconciler_puts_back_what_it_can_and_moves_on(
    servers: ClusterServers,
    redis_client: RedisClient,
    lost: Place,
    left: Place,
    events: SessionEvents,
    metrics: Metrics,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.maintenance.reconciler.SHARDS", (lost.shard, left.shard))
    relisting = IndexRepair(redis_client, KEYS, IndexRemoval(redis_client, KEYS), owner_index_lifetime_ms=MINUTE_MS)
    reconciler = Reconciler(redis_client, KEYS, relisting, LostSessions(redis_client, KEYS, events), metrics)
    await redis_client.execute(*alive(left.session(1), left), *alive(left.session(2), left._replace(agent=lost.agent)))
    await redis_client.execute(("DEL", KEYS.user(left.user)), ("DEL", KEYS.agent(left.agent)))
    lose(servers, lost.node)

    with pytest.raises(StoreUnavailable):
        await reconciler.round()
    with pytest.raises(StoreUnavailable):
        await reconciler.round()

    assert await listed_by(redis_client, KEYS.user(left.user)) == [left.session(1).encode(), left.session(2).encode()]
    assert await listed_by(redis_client, KEYS.agent(left.agent)) == [left.session(1).encode()]


async def test_lost_sessions_elsewhere_are_counted(
    servers: ClusterServers,
    redis_client: RedisClient,
    lost: Place,
    left: Place,
    events: SessionEvents,
    metrics: Metrics,
) -> None:
    losses = LostSessions(redis_client, KEYS, events)
    gone = [lost.session(1), left.session(1), lost.session(2), left.session(2)]
    await redis_client.execute(*chain.from_iterable(tombstone(session_id, left, FUTURE_MS) for session_id in gone))
    lose(servers, lost.node)

    for session_id in gone:
        losses.met(session_id)
    await losses.aclose()

    assert counted(metrics.ended) == {"lost": 2}


async def test_suspects_elsewhere_leave_their_lookups_and_the_others_later(
    servers: ClusterServers, redis_client: RedisClient, lost: Place, left: Place
) -> None:
    delisting = IndexRemoval(redis_client, KEYS)
    await redis_client.execute(*tombstone(left.session(1), left, PAST_MS), *tombstone(lost.session(1), left, PAST_MS))
    await redis_client.execute(*tombstone(left.session(2), lost, PAST_MS))
    delisting.left_behind(left.session(2), lost.agent, lost.user)
    delisting.left_behind(lost.session(1), left.agent, left.user)
    delisting.left_behind(left.session(1), left.agent, left.user)
    lose(servers, lost.node)

    with pytest.raises(StoreUnavailable):
        await delisting.round()
    meanwhile = await listed_by(redis_client, KEYS.user(left.user))
    find(servers, lost.node)
    await delisting.round()

    assert meanwhile == [lost.session(1).encode()]
    assert await listed_by(redis_client, KEYS.user(left.user)) == []
    assert await listed_by(redis_client, KEYS.user(lost.user)) == []


async def test_servers_that_answer_are_checked_and_the_others_when_they_do(
    servers: ClusterServers,
    redis_client: RedisClient,
    lost: Place,
    events: SessionEvents,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    upkeep = StartupChecks(redis_client, KEYS, events)
    lost.node.pause()
    with pytest.raises(StoreUnavailable):
        await upkeep.round()
    told_at_first = said_by("service.maintenance.server_checks", caplog)
    lost.node.resume()

    await upkeep.round()
    await upkeep.round()

    told = said_by("service.maintenance.server_checks", caplog)
    assert (len(told_at_first), len(told)) == (2, 3)
    assert f":{lost.node.port}" in told[-1]


# Bulk ends


async def test_what_a_bulk_end_ended_elsewhere_is_counted_and_delisted(
    servers: ClusterServers,
    redis_client: RedisClient,
    lost: Place,
    left: Place,
    events: SessionEvents,
    metrics: Metrics,
) -> None:
    sessions = [left.session(1), lost.session(1), left.session(2), lost.session(2)]
    await redis_client.execute(*chain.from_iterable(alive(session_id, left) for session_id in sessions))
    lose(servers, lost.node)

    with pytest.raises(StoreUnavailable):
        await BulkRevocation(redis_client, KEYS, events).revoke(OwnerFilter(None, left.user))

    on_the_lost_one = [lost.session(1).encode(), lost.session(2).encode()]
    assert counted(metrics.ended) == {"revoked": 2}
    assert await listed_by(redis_client, KEYS.user(left.user)) == on_the_lost_one
    assert await listed_by(redis_client, KEYS.agent(left.agent)) == on_the_lost_one


async def test_a_bulk_end_succeeds_where_only_another_lookup_is_away_and_that_is_seen_to_later(
    servers: ClusterServers, redis_client: RedisClient, lost: Place, left: Place, events: SessionEvents
) -> None:
    delisting = IndexRemoval(redis_client, KEYS)
    events.when_left_behind = delisting.left_behind
    await redis_client.execute(*alive(left.session(), left._replace(agent=lost.agent)))
    lose(servers, lost.node)

    revoked = await BulkRevocation(redis_client, KEYS, events).revoke(OwnerFilter(None, left.user))
    find(servers, lost.node)
    await delisting.round()

    assert (revoked.number, revoked.rest) == (1, None)
    assert await listed_by(redis_client, KEYS.agent(lost.agent)) == []


# Limits


async def test_addresses_whose_buckets_are_away_are_let_through_and_the_others_counted(
    servers: ClusterServers, redis_client: RedisClient, lost: Place, left: Place
) -> None:
    buckets, limit = Buckets(redis_client), Limit("address", Rate(3, 3600))
    lose(servers, lost.node)

    there, here = [await let_through(buckets, limit, address_on(servers, place.node), 5) for place in (lost, left)]

    assert (there, here) == (5, 3)


async def let_through(buckets: Buckets, limit: Limit, address: str, requests: int) -> int:
    """How many of so many requests at once."""
    taking = (buckets.take(KEYS.requests("address", address), limit, None, RateLimitStatus()) for _ in range(requests))
    answers = await asyncio.gather(*taking, return_exceptions=True)
    return answers.count(None)


def address_on(servers: ClusterServers, node: Node) -> str:
    """One whose buckets lie there."""
    addresses = (f"203.0.113.{number}" for number in range(256))
    return next(found for found in addresses if owner_of(servers, KEYS.requests("address", found).bucket) is node)


# Replicas


def test_a_replica_started_while_the_mark_of_the_layout_is_away_does_not_serve(
    servers: ClusterServers, start_replica: StartReplica
) -> None:
    marked = owner_of(servers, KEYS.layout)
    marked.command("SET", KEYS.layout, "2")
    lose(servers, marked)
    replica = start_replica(REDIS_URL=servers.url, SESSION_STORE_TIMEOUT_SECONDS="1")

    opened = [replica.call("POST", SESSIONS, {"agentId": AGENT, "userId": USER})[0] for _ in range(3)]

    assert (opened, replica.call("GET", "/readyz")[0]) == ([503] * 3, 503)
    marked.start()
    assert '"level":"warning"' in replica.line_with("The data in Redis is of layout 2")


def test_a_replica_that_knew_the_layout_stays_ready(servers: ClusterServers, start_replica: StartReplica) -> None:
    replica = start_replica(REDIS_URL=servers.url, SESSION_STORE_TIMEOUT_SECONDS="1")
    before = replica.call("GET", "/readyz")[0]
    lose(servers, owner_of(servers, KEYS.layout))

    assert (before, replica.call("GET", "/readyz")[0]) == (200, 200)


def test_a_replica_started_while_the_secret_is_away_serves_what_lies_elsewhere_and_tells_no_ids(
    servers: ClusterServers, start_replica: StartReplica
) -> None:
    lose(servers, owner_of(servers, KEYS.secret))
    replica = start_replica(REDIS_URL=servers.url, SESSION_STORE_TIMEOUT_SECONDS="1")
    here = next(shard for shard in SHARDS if owner_of(servers, KEYS.expiry(shard)).is_running)

    asked = replica.call("GET", f"{SESSIONS}/{here}16d2ea-673d-47d0-b1bd-33202db7411b")[0]

    assert (asked, replica.call("GET", "/readyz")[0]) == (404, 200)
    assert '"session":"hidden"' in replica.line_with('"status":404')
