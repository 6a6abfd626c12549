"""The primary fails behind Sentinel: 503 in bounded time, and what replicas had is there, whatever the old one says."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import AGENT, USER, StartReplica
from tests.faults.conftest import PATIENT, SETTINGS, started
from tests.faults.lengths import LENGTHS, Length
from tests.faults.load import Load
from tests.faults.remains import half_written
from tests.replica import Replica
from tests.sentinel_servers import SentinelServers
from tests.test_walkthrough import SESSIONS

RECOVERY_SECONDS = 10
WINDOW_SECONDS = 1
"""A change that was acknowledged so long before its primary's end may be lost where no replica is waited for."""


@pytest.fixture(scope="module")
def behind_sentinel() -> Iterator[SentinelServers]:
    with tempfile.TemporaryDirectory() as folder:
        servers = SentinelServers(Path(folder))
        servers.start()
        yield servers
        servers.stop()


@pytest.fixture
def well(behind_sentinel: SentinelServers) -> Iterator[SentinelServers]:
    """The same, whole before a test and after it."""
    yield behind_sentinel
    behind_sentinel.wait_until_settled()
    behind_sentinel.wait_until_following()


@pytest.fixture(scope="module")
def replicated(behind_sentinel: SentinelServers) -> Iterator[list[Replica]]:
    """Three that wait until a replica of Redis has what was changed."""
    settings = {**SETTINGS, "REDIS_URL": behind_sentinel.url, "SESSION_WAIT_REPLICAS": "1"}
    with started(*(Replica(**settings) for _ in range(3))) as replicas:
        yield replicas


@pytest.fixture(scope="module")
def unreplicated(behind_sentinel: SentinelServers) -> Iterator[list[Replica]]:
    """Three that do not wait for replicas of Redis."""
    with started(*(Replica(REDIS_URL=behind_sentinel.url, **SETTINGS) for _ in range(3))) as replicas:
        yield replicas


@pytest.fixture(scope="module")
def all_replicated(behind_sentinel: SentinelServers) -> Iterator[list[Replica]]:
    """Three that wait until every replica of Redis has what was changed."""
    settings = {**SETTINGS, "REDIS_URL": behind_sentinel.url, "SESSION_WAIT_REPLICAS": "2"}
    with started(*(Replica(**settings) for _ in range(3))) as replicas:
        yield replicas


def urls_of(replicas: list[Replica]) -> list[str]:
    return [replica.url for replica in replicas]


@LENGTHS
def test_a_killed_primary_costs_nothing_that_its_replicas_have(
    well: SentinelServers, replicated: list[Replica], length: Length
) -> None:
    failures = []
    with Load(urls_of(replicated), clients=length.clients) as load:
        for _ in range(length.times):
            load.until_answered(length.steady)
            failures.append(outage_of_a_killed_primary(well, load))

    assert load.wrong == []
    assert {answer.status for answer in load.failures()} == {503}
    assert max(failures) < RECOVERY_SECONDS
    assert half_written(well.primary.admin_url, load.checker.sessions) == []


@LENGTHS
def test_without_waiting_for_replicas_a_killed_primary_costs_at_most_the_last_second(
    well: SentinelServers, unreplicated: list[Replica], length: Length
) -> None:
    failures = []
    with Load(urls_of(unreplicated), clients=length.clients) as load:
        for _ in range(length.times):
            load.until_answered(length.steady)
            failures.append(outage_of_a_killed_primary(well, load, window_seconds=WINDOW_SECONDS))

    assert load.wrong == []
    assert {answer.status for answer in load.failures()} == {503}
    assert max(failures) < RECOVERY_SECONDS


def outage_of_a_killed_primary(servers: SentinelServers, load: Load, window_seconds: float | None = None) -> float:
    """How many seconds passed until all was well; the old primary is brought back as a replica."""
    old = servers.primary
    old.kill()
    killed = time.time()
    load.until_failed()
    if window_seconds is not None:
        load.checker.doubt_since(killed - window_seconds)
    new = servers.wait_until_replaced(old)
    well = load.until_well()
    old.start()
    old.command("REPLICAOF", "127.0.0.1", new.port)
    servers.wait_until_settled()
    servers.wait_until_following()
    return well - killed


@LENGTHS
def test_a_primary_that_was_paused_and_replaced_serves_nobody_when_it_goes_on(
    well: SentinelServers, replicated: list[Replica], length: Length
) -> None:
    with Load(urls_of(replicated), clients=length.clients) as load:
        for _ in range(length.times):
            load.until_answered(length.steady)
            old = well.primary
            old.pause()
            well.wait_until_replaced(old)
            load.until_answered(length.steady)
            old.resume()
            well.wait_until_settled()
            load.until_well()

    assert load.wrong == []
    assert {answer.status for answer in load.failures()} == {503}


def test_a_replica_that_was_idle_meanwhile_does_not_ask_the_old_primary_either(
    well: SentinelServers, replicated: list[Replica]
) -> None:
    busy, idle, _ = replicated
    _, session = busy.call("POST", SESSIONS, {"agentId": AGENT, "userId": USER})
    path = f"{SESSIONS}/{session['sessionId']}"
    idle.call("POST", f"{path}/renew")
    idle.call("GET", path)
    old = well.primary
    old.pause()
    well.wait_until_replaced(old)
    changed = until_done(busy, "PATCH", f"{path}/metadata", {"seen": "by the new one alone"})
    old.resume()

    assert idle.call("GET", path)[1]["metadata"] == changed["metadata"]
    assert idle.call("POST", f"{path}/renew")[0] == 200


def until_done(replica: Replica, method: str, path: str, body: object) -> dict[str, object]:
    """The first answer that is none of an outage."""
    latest = time.monotonic() + RECOVERY_SECONDS
    while (answer := replica.call(method, path, body))[0] == 503:
        assert time.monotonic() < latest, answer
    return answer[1]  # type: ignore[no-any-return]


@LENGTHS
def test_a_planned_failover_costs_nothing_that_all_replicas_had(
    well: SentinelServers, all_replicated: list[Replica], length: Length
) -> None:
    failures = []
    with Load(urls_of(all_replicated), clients=length.clients, seen_stays=False) as load:
        for _ in range(length.times):
            load.until_answered(length.steady)
            begun = time.time()
            well.fail_over()
            failures.append(load.until_well() - begun)
            well.wait_until_settled()
            well.wait_until_following()

    assert load.wrong == []
    assert {answer.status for answer in load.failures()} <= {503}
    assert max(failures) < RECOVERY_SECONDS


@LENGTHS
def test_while_no_sentinel_answers_nothing_fails(
    well: SentinelServers, replicated: list[Replica], length: Length
) -> None:
    with Load(urls_of(replicated), clients=length.clients) as load:
        for sentinel in well.sentinels:
            sentinel.kill()
        load.for_seconds(length.seconds)
        load.until_answered(length.steady)
        for sentinel in well.sentinels:
            sentinel.start()

    assert load.wrong == []
    assert load.failures() == []


def test_a_replica_starts_while_a_sentinel_is_away(well: SentinelServers, start_replica: StartReplica) -> None:
    well.sentinels[0].kill()

    replica = start_replica(REDIS_URL=well.url, **PATIENT)
    status, _ = replica.call("POST", SESSIONS, {"agentId": AGENT, "userId": USER})
    ready, _ = replica.call("GET", "/readyz")

    well.sentinels[0].start()
    assert (status, ready) == (201, 200)
