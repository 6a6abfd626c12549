"""Servers of a Cluster fail, and slots move, while in use: it costs only what lies there, and only for a time."""

import tempfile
import time
from collections.abc import Iterator, Set
from pathlib import Path

import pytest

from service.redis_client.cluster_routing import slot_of
from service.sessions.keys import Keys
from tests.cluster_servers import SLOTS, ClusterServers, Node
from tests.faults.checker import Answer
from tests.faults.conftest import SETTINGS, started
from tests.faults.lengths import LENGTHS, Length
from tests.faults.load import Load
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

ALL_SLOTS = frozenset(range(SLOTS))
RECOVERY_SECONDS = 10
HELD_UP_SECONDS = 0.4
"""Less than a replica waits for a server of Redis that is silent."""

ALONE = frozenset({"read", "read of another's", "heartbeat", "renew", "annotate"})
"""What asks the session's own server only; a creation and a deletion change its lookups too, which lie elsewhere."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterServers]:
    with tempfile.TemporaryDirectory() as folder:
        servers = ClusterServers(Path(folder), replicas=True)
        servers.start()
        yield servers
        servers.stop()


@pytest.fixture
def well(cluster: ClusterServers) -> Iterator[ClusterServers]:
    """The same, whole before a test and after it."""
    yield cluster
    cluster.wait_until_settled()


@pytest.fixture(scope="module")
def group(cluster: ClusterServers) -> Iterator[list[Replica]]:
    settings = {**SETTINGS, "REDIS_URL": cluster.url, "SESSION_WAIT_REPLICAS": "1"}
    with started(*(Replica(**settings) for _ in range(3))) as replicas:
        yield replicas


@pytest.fixture
def group_urls(group: list[Replica]) -> list[str]:
    return [replica.url for replica in group]


def slot_of_session(session_id: str) -> int:
    return slot_of(Keys("").session(session_id))


def of_slots(answers: list[Answer], slots: Set[int]) -> list[Answer]:
    """Those about sessions that lie there, and on one server alone."""
    return [answer for answer in answers if answer.verb in ALONE and slot_of_session(answer.session_id) in slots]


def slow(answers: list[Answer]) -> float:
    """The seconds that all but a twentieth of them took at most: a machine that is busy holds up some."""
    return sorted(answer.came - answer.asked for answer in answers)[-len(answers) // 20]


def statuses(group: list[Replica], path: str) -> set[int]:
    return {replica.call("GET", path)[0] for replica in group}


@LENGTHS
def test_a_killed_primary_costs_its_own_sessions_a_moment_and_others_nothing(
    well: ClusterServers, group: list[Replica], group_urls: list[str], length: Length
) -> None:
    failures, failures_of_others = [], []
    with Load(group_urls, clients=length.clients) as load:
        for number in range(length.times):
            load.until_answered(length.steady)
            lost = well.primaries[number % 3]
            its_slots = well.slots_of(lost)
            lost.kill()
            killed = time.time()
            load.until_failed()

            assert statuses(group, "/readyz") == {200}
            assert statuses(group, SESSIONS) <= {200, 503}

            well.wait_until_served(min(its_slots))
            lost.start()  # as a replica, which changes wait for
            failures.append(load.until_well() - killed)
            failures_of_others += of_slots(load.failures(since=killed), ALL_SLOTS - its_slots)
            well.wait_until_settled()

    assert load.wrong == []
    assert {answer.status for answer in load.failures()} == {503}
    assert failures_of_others == []
    assert max(failures) < RECOVERY_SECONDS


@LENGTHS
def test_a_silent_primary_holds_up_its_own_sessions_alone(
    well: ClusterServers, group_urls: list[str], length: Length
) -> None:
    silent = well.primaries[0]
    its_slots = well.slots_of(silent)
    with Load(group_urls, clients=length.clients) as load:
        load.until_answered(length.steady)
        silent.pause()
        paused = time.time()
        load.for_seconds(3 * length.seconds)
        went_on = time.time()
        silent.resume()
        well.wait_until_settled()
        well_again = load.until_well()

    meanwhile = [answer for answer in load.checker.answers if paused <= answer.asked < went_on]
    others = of_slots(meanwhile, ALL_SLOTS - its_slots)
    assert load.wrong == []
    assert [answer for answer in others if answer.failed] == []
    assert len(others) > length.clients
    assert slow(others) < HELD_UP_SECONDS
    assert well_again - went_on < RECOVERY_SECONDS


@LENGTHS
def test_slots_that_move_cost_only_their_own_sessions_and_only_meanwhile(
    well: ClusterServers, group_urls: list[str], length: Length
) -> None:
    source, target, _ = well.primaries
    with Load(group_urls, clients=length.clients) as load:
        load.until_answered(length.steady)
        slots = busiest(load, well.slots_of(source))[: 4 * length.times]
        for slot in slots:
            move_in_steps(well, slot, target, load)
        moved = time.time()
        well_again = load.until_well()
        load.until_answered(length.steady)

    elsewhere = ALL_SLOTS - set(slots)
    assert load.wrong == []
    assert {well.owner_of(slot) for slot in slots} == {target}
    assert of_slots(load.failures(), elsewhere) == []
    assert {answer.status for answer in load.failures()} <= {503}
    assert well_again - moved < 1


def busiest(load: Load, slots: set[int]) -> list[int]:
    """Of these, those with most sessions first."""
    used = [slot_of_session(known.id) for known in load.checker.sessions]
    return sorted(slots & set(used), key=used.count, reverse=True)


def move_in_steps(cluster: ClusterServers, slot: int, target: Node, load: Load) -> None:
    with cluster.migrating(slot, to=target) as migration:
        load.until_answered(10)
        while migration.move(2):
            load.until_answered(10)
