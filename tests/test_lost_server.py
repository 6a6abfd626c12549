"""A Cluster one of whose servers is gone, with nobody to take its place: what lies on the others goes on."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from service.connect import source_of
from service.lane import Lane
from service.metrics import Metrics
from service.store_watch import StoreWatch
from tests.cluster_servers import ClusterServers, Node
from tests.conftest import AGENT, USER, StartReplica
from tests.store.evidence import KEYS
from tests.test_walkthrough import SESSIONS

TIMEOUT_SECONDS = 1


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
        node.start() if not node.runs else None
    servers.until_settled()
    for node in servers.servers:
        node.command("FLUSHALL")


@pytest.fixture
async def lane(servers: ClusterServers) -> AsyncIterator[Lane]:
    source = source_of(servers.url, TIMEOUT_SECONDS, StoreWatch(Metrics()))
    lane = source.new_lane()
    yield lane
    await lane.aclose()
    await source.aclose()


def owner_of(servers: ClusterServers, key: str) -> Node:
    return servers.owner_of(servers.slot_of(key))


def lose(servers: ClusterServers, node: Node) -> None:
    """Kill it, and wait until the others have noticed."""
    node.kill()
    servers.until_down(node)


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
    assert '"level":"error"' in replica.line_with("The data in Redis is of layout 2")


def test_a_replica_that_knew_the_layout_stays_ready(servers: ClusterServers, start_replica: StartReplica) -> None:
    replica = start_replica(REDIS_URL=servers.url, SESSION_STORE_TIMEOUT_SECONDS="1")
    before = replica.call("GET", "/readyz")[0]
    lose(servers, owner_of(servers, KEYS.layout))

    assert (before, replica.call("GET", "/readyz")[0]) == (200, 200)
