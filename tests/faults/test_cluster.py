"""Nodes of a Redis Cluster fail, and slots move, under load. Only sessions in the affected slots fail, and briefly."""

import tempfile
import time
from collections.abc import Iterator, Set
from pathlib import Path

import pytest

from service.redis_client.cluster_routing import slot_of
from service.sessions.keys import Keys
from tests.cluster_servers import SLOTS, ClusterServers, Node
from tests.faults.checker import Response
from tests.faults.conftest import SHORT_STORE_TIMEOUT, started, urls_of
from tests.faults.load import Load
from tests.faults.scales import SCALES, Scale
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

ALL_SLOTS = frozenset(range(SLOTS))
MAX_RECOVERY_SECONDS = 10
MAX_DELAY_SECONDS = 1.5
"""Less than the store timeout."""

SINGLE_SLOT_OPERATIONS = frozenset({"read", "read of another client", "heartbeat", "renew", "update_metadata"})
"""Creation and deletion also change the owner indexes, which are in other slots."""


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[ClusterServers]:
    with tempfile.TemporaryDirectory() as folder:
        servers = ClusterServers(Path(folder), replicas=True)
        servers.start()
        yield servers
        servers.stop()


@pytest.fixture
def cluster(running_cluster: ClusterServers) -> Iterator[ClusterServers]:
    """A cluster in which all nodes run. The test must restart the nodes that it stops."""
    yield running_cluster
    running_cluster.wait_until_settled()


@pytest.fixture(scope="module")
def replicas(running_cluster: ClusterServers) -> Iterator[list[Replica]]:
    settings = {**SHORT_STORE_TIMEOUT, "REDIS_URL": running_cluster.url, "SESSION_WAIT_REPLICAS": "1"}
    with started(*(Replica(**settings) for _ in range(2))) as replicas:
        yield replicas


@SCALES
def test_a_killed_primary_affects_only_its_own_sessions(
    cluster: ClusterServers, replicas: list[Replica], scale: Scale
) -> None:
    outage_seconds, failures_in_other_slots = [], []
    with Load(urls_of(replicas), clients=scale.clients) as load:
        for number in range(scale.repetitions):
            load.wait_for_successes(scale.requests)
            primary = cluster.primaries[number % 3]
            slots = cluster.slots_of(primary)
            primary.kill()
            killed_at = time.time()
            load.wait_for_failures()

            assert statuses_of(replicas, "/readyz") == {200}
            assert statuses_of(replicas, SESSIONS) <= {200, 503}

            cluster.wait_until_served(min(slots))
            primary.start()  # as a replica, so that changes can be replicated
            outage_seconds.append(load.wait_until_stable() - killed_at)
            failures_in_other_slots += in_slots(load.failures(since=killed_at), ALL_SLOTS - slots)
            cluster.wait_until_settled()

    assert load.violations == []
    assert load.failure_statuses == {503}
    assert failures_in_other_slots == []
    assert max(outage_seconds) < MAX_RECOVERY_SECONDS


@SCALES
def test_a_hanging_primary_delays_only_its_own_sessions(
    cluster: ClusterServers, replicas: list[Replica], scale: Scale
) -> None:
    primary = cluster.primaries[0]
    slots = cluster.slots_of(primary)
    with Load(urls_of(replicas), clients=scale.clients) as load:
        load.wait_for_successes(scale.requests)
        primary.pause()
        paused_at = time.time()
        load.run_for(scale.pause_seconds)
        resumed_at = time.time()
        primary.resume()
        cluster.wait_until_settled()
        stable_at = load.wait_until_stable()

    during_pause = [response for response in load.checker.responses if paused_at <= response.sent_at < resumed_at]
    in_other_slots = in_slots(during_pause, ALL_SLOTS - slots)
    assert load.violations == []
    assert [response for response in in_other_slots if response.is_failure] == []
    assert len(in_other_slots) > scale.clients
    assert percentile_95(in_other_slots) < MAX_DELAY_SECONDS
    assert stable_at - resumed_at < MAX_RECOVERY_SECONDS


@SCALES
def test_moving_slots_affects_only_their_own_sessions(
    cluster: ClusterServers, replicas: list[Replica], scale: Scale
) -> None:
    source, target, _ = cluster.primaries
    with Load(urls_of(replicas), clients=scale.clients) as load:
        load.wait_for_successes(scale.requests)
        slots = busiest_slots(load, cluster.slots_of(source))[: 4 * scale.repetitions]
        for slot in slots:
            move_slowly(cluster, slot, target, load)
        moved_at = time.time()
        stable_at = load.wait_until_stable()
        load.wait_for_successes(scale.requests)

    assert load.violations == []
    assert {cluster.owner_of(slot) for slot in slots} == {target}
    assert in_slots(load.failures(), ALL_SLOTS - set(slots)) == []
    assert load.failure_statuses <= {503}
    assert stable_at - moved_at < MAX_RECOVERY_SECONDS


def slot_of_session(session_id: str) -> int:
    return slot_of(Keys("").session(session_id))


def in_slots(responses: list[Response], slots: Set[int]) -> list[Response]:
    """Return the responses of operations that access only these slots."""
    return [
        response
        for response in responses
        if response.operation in SINGLE_SLOT_OPERATIONS and slot_of_session(response.session_id) in slots
    ]


def percentile_95(responses: list[Response]) -> float:
    return sorted(response.seconds for response in responses)[-len(responses) // 20]


def statuses_of(replicas: list[Replica], path: str) -> set[int]:
    return {replica.call("GET", path)[0] for replica in replicas}


def busiest_slots(load: Load, slots: set[int]) -> list[int]:
    """Return those of the slots that contain sessions, those with most sessions first."""
    used = [slot_of_session(session.id) for session in load.checker.sessions]
    return sorted(slots & set(used), key=used.count, reverse=True)


def move_slowly(cluster: ClusterServers, slot: int, target: Node, load: Load) -> None:
    with cluster.migrating(slot, to=target) as migration:
        load.wait_for_successes(10)
        while migration.move(2):
            load.wait_for_successes(10)
