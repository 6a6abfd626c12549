"""The servers that other tests stand on: Sentinel and Cluster are there, and fail over.

They have logins here; the tests that stand on them have servers without.
"""

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from redis import Redis, RedisCluster
from redis.exceptions import AuthenticationError

from tests import cluster_servers, sentinel_servers
from tests.cluster_servers import ClusterServers
from tests.sentinel_servers import SentinelServers

KEYS = [f"{{k}}{number}" for number in range(10)]


@pytest.fixture(scope="module")
def behind_sentinel() -> Iterator[SentinelServers]:
    with tempfile.TemporaryDirectory() as folder:
        servers = SentinelServers(Path(folder), logins=sentinel_servers.Logins())
        try:
            servers.start()
            yield servers
        finally:
            servers.stop()


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterServers]:
    with tempfile.TemporaryDirectory() as folder:
        cluster = ClusterServers(Path(folder), replicas=True, logins=cluster_servers.Logins())
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture
def without_replicas(data_dir: Path) -> Iterator[ClusterServers]:
    cluster = ClusterServers(data_dir)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def client_of(cluster: ClusterServers) -> RedisCluster:
    scheme, addresses = cluster.url.split("+cluster")
    return RedisCluster.from_url(scheme + addresses.split(",")[0])


def test_a_killed_primary_is_replaced_and_comes_back_as_a_replica(behind_sentinel: SentinelServers) -> None:
    old = behind_sentinel.primary
    old.command("SET", "a", "kept")
    behind_sentinel.wait_until_following()

    old.kill()
    new = behind_sentinel.wait_until_replaced(old)
    old.start()
    behind_sentinel.wait_until_following(old)

    assert (new.command("GET", "a"), old.command("GET", "a")) == (b"kept", b"kept")
    assert new is not old


def test_sentinels_promote_a_replica_by_request(behind_sentinel: SentinelServers) -> None:
    old = behind_sentinel.primary

    behind_sentinel.fail_over()

    assert behind_sentinel.primary is not old


@pytest.mark.parametrize("login", ["", "intruder:guess@"])
def test_where_there_are_logins_nobody_else_is_let_in(behind_sentinel: SentinelServers, login: str) -> None:
    port = behind_sentinel.primary.port

    with closing(Redis.from_url(f"redis://{login}127.0.0.1:{port}")) as intruder, pytest.raises(AuthenticationError):
        intruder.ping()


def test_a_slot_moves_while_it_is_in_use(cluster: ClusterServers) -> None:
    slot = cluster.slot_of(KEYS[0])
    source = cluster.owner_of(slot)
    target = next(node for node in cluster.primaries if node is not source)

    with closing(client_of(cluster)) as client:
        client.mset_nonatomic(dict.fromkeys(KEYS, "kept"))
        with cluster.migrating(slot, to=target) as migration:
            moved = migration.move(5)
            half_way = [client.get(key) for key in KEYS]

    assert (moved, half_way) == (5, [b"kept"] * 10)
    assert cluster.owner_of(slot) is target
    assert target.command("GET", KEYS[9]) == b"kept"


def test_a_replica_takes_over_by_request(cluster: ClusterServers) -> None:
    first, *_ = cluster.primaries

    replica = cluster.fail_over(first)

    assert cluster.owner_of(0) is replica
    assert replica is not first


def test_a_replica_takes_the_place_of_a_killed_primary(cluster: ClusterServers) -> None:
    cluster.wait_until_settled()
    old = cluster.owner_of(0)
    replica = cluster.replica_of(old)

    old.kill()
    cluster.wait_until_down(old)
    new = cluster.wait_until_served(0)
    old.start()
    cluster.wait_until_settled()

    assert new is replica
    assert old.follows(new)


def test_without_replicas_the_slots_of_a_killed_primary_wait_for_it(without_replicas: ClusterServers) -> None:
    slot = without_replicas.slot_of(KEYS[0])
    lost = without_replicas.owner_of(slot)
    lost.command("SET", KEYS[0], "kept")

    lost.kill()
    without_replicas.wait_until_down(lost)
    lost.start()

    assert without_replicas.wait_until_served(slot) is lost
    assert lost.command("GET", KEYS[0]) == b"kept"
