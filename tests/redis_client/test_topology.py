"""The slot map of a cluster: where it comes from, and when it is refreshed."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.exceptions import ResponseError

from service.errors import StoreUnavailable
from service.redis_client.client import Reply
from service.redis_client.cluster_routing import Topology
from service.redis_client.scripts import Command
from service.settings.redis_url import Host

SEED: Host = ("seed", 7000)
NODE: Host = ("node", 7001)


class FakeCluster:
    """Replies to CLUSTER SLOTS. `replies` are the replies of each node."""

    def __init__(self) -> None:
        self.replies: dict[Host, Reply] = {SEED: [[0, 99, [b"node", 7001, b"id"]]]}
        self.queried: list[Host] = []

    async def query(self, host: Host, command: Command) -> Reply:
        self.queried.append(host)
        await asyncio.sleep(0)
        match self.replies.get(host, ConnectionRefusedError()):
            case Exception() as error if not isinstance(error, ResponseError):
                raise error
            case reply:
                return reply


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
async def topology(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Topology]:
    monkeypatch.setattr("service.redis_client.cluster_routing._MIN_REFRESH_SECONDS", 0)
    topology = Topology(cluster.query, [SEED], timeout_seconds=1)
    yield topology
    await topology.aclose()


async def test_concurrent_lookups_share_one_query(topology: Topology, cluster: FakeCluster) -> None:
    assert await asyncio.gather(*(topology.host_of(slot) for slot in range(50))) == [NODE] * 50

    assert cluster.queried == [SEED]


async def test_a_slot_that_no_node_serves_is_unavailable(topology: Topology) -> None:
    with pytest.raises(StoreUnavailable) as error:
        await topology.host_of(100)

    assert error.value.cause == "no cluster node serves slot 100"


async def test_a_node_without_a_hostname_has_the_address_that_was_queried(
    topology: Topology, cluster: FakeCluster
) -> None:
    cluster.replies[SEED] = [[0, 99, [b"", 7005, b"id"]]]

    assert await topology.host_of(7) == ("seed", 7005)


async def test_known_nodes_are_queried_before_the_nodes_of_the_url(topology: Topology, cluster: FakeCluster) -> None:
    await topology.hosts()
    cluster.replies[NODE] = [[0, 99, [b"other", 7002, b"id"]]]

    await topology.refresh()

    assert cluster.queried == [SEED, NODE]
    assert await topology.hosts() == [("other", 7002)]


async def test_a_moved_slot_is_known_at_once(topology: Topology) -> None:
    await topology.hosts()

    topology.move(7, ("other", 7002))

    assert await topology.host_of(7) == ("other", 7002)
    assert await topology.host_of(8) == NODE


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (ResponseError("NOPERM not allowed"), "seed:7000: NOPERM not allowed (to CLUSTER SLOTS)"),
        ([], "seed:7000: no slots are assigned"),
        (ConnectionRefusedError("refused"), "seed:7000: ConnectionRefusedError: refused"),
    ],
)
async def test_the_last_slot_map_is_kept_if_no_node_returns_another_one(
    topology: Topology, cluster: FakeCluster, reply: Reply, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    await topology.hosts()
    cluster.replies[SEED] = reply

    await topology.refresh()
    await topology.refresh()

    assert await topology.host_of(7) == NODE
    (logged,) = caplog.messages
    assert logged.startswith("no cluster node returns the slot map: ")
    assert message in logged


async def test_the_only_host_has_the_whole_timeout(cluster: FakeCluster) -> None:
    async def respond_late(host: Host, command: Command) -> Reply:
        await asyncio.sleep(0.9)
        return await cluster.query(host, command)

    topology = Topology(respond_late, [SEED], timeout_seconds=2)

    assert await topology.hosts() == [NODE]


@pytest.mark.parametrize("reply", [[None], [[0, 99]], [[0, 99, [b"\xff", 7001]]], [[0, b"x", [b"node", 7001]]]])
async def test_after_an_unexpected_reply_another_host_is_queried(
    topology: Topology, cluster: FakeCluster, reply: Reply
) -> None:
    await topology.hosts()
    cluster.replies[NODE] = reply

    await topology.refresh()

    assert cluster.queried == [SEED, NODE, SEED]
