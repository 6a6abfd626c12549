"""The primary behind Sentinel fails under load: 503 in bounded time, and replicated changes are not lost."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import AGENT, USER, StartReplica
from tests.faults.conftest import LONG_STORE_TIMEOUT, SHORT_STORE_TIMEOUT, started, urls_of
from tests.faults.integrity import incomplete_sessions
from tests.faults.load import Load
from tests.faults.scales import LONG_ONLY, SCALES, Scale
from tests.replica import Replica
from tests.sentinel_servers import SentinelServers
from tests.test_walkthrough import SESSIONS

MAX_RECOVERY_SECONDS = 10
MAX_LOSS_SECONDS = 1
"""Without waiting for Redis replicas, changes acknowledged this long before a failure may be lost."""


@pytest.fixture(scope="module")
def running_servers() -> Iterator[SentinelServers]:
    with tempfile.TemporaryDirectory() as folder:
        servers = SentinelServers(Path(folder))
        servers.start()
        yield servers
        servers.stop()


@pytest.fixture
def servers(running_servers: SentinelServers) -> Iterator[SentinelServers]:
    """Servers and sentinels that all run. The test must restart the servers that it kills."""
    yield running_servers
    for sentinel in running_servers.sentinels:
        if not sentinel.is_running:
            sentinel.start()
    running_servers.wait_until_settled()
    running_servers.wait_until_following()


@pytest.fixture(scope="module")
def replicas(running_servers: SentinelServers) -> Iterator[list[Replica]]:
    """Two service processes that wait until one Redis replica has a change."""
    settings = {**SHORT_STORE_TIMEOUT, "REDIS_URL": running_servers.url, "SESSION_WAIT_REPLICAS": "1"}
    with started(*(Replica(**settings) for _ in range(2))) as replicas:
        yield replicas


@pytest.fixture(scope="module")
def replica_without_wait(running_servers: SentinelServers) -> Iterator[list[Replica]]:
    """A service process that does not wait for Redis replicas."""
    with started(Replica(REDIS_URL=running_servers.url, **SHORT_STORE_TIMEOUT)) as replicas:
        yield replicas


@pytest.fixture(scope="module")
def replica_with_full_wait(running_servers: SentinelServers) -> Iterator[list[Replica]]:
    """A service process that waits until both Redis replicas have a change."""
    settings = {**SHORT_STORE_TIMEOUT, "REDIS_URL": running_servers.url, "SESSION_WAIT_REPLICAS": "2"}
    with started(Replica(**settings)) as replicas:
        yield replicas


@SCALES
def test_replicated_changes_survive_a_killed_primary(
    servers: SentinelServers, replicas: list[Replica], scale: Scale
) -> None:
    outage_seconds = []
    with Load(urls_of(replicas), clients=scale.clients) as load:
        for _ in range(scale.repetitions):
            load.wait_for_successes(scale.requests)
            outage_seconds.append(seconds_without_primary(servers, load))

    assert load.violations == []
    assert load.failure_statuses == {503}
    assert max(outage_seconds) < MAX_RECOVERY_SECONDS
    assert incomplete_sessions(servers.primary.admin_url, load.checker.sessions) == []


@LONG_ONLY
def test_without_waiting_only_the_last_second_is_lost(
    servers: SentinelServers, replica_without_wait: list[Replica], scale: Scale
) -> None:
    outage_seconds = []
    with Load(urls_of(replica_without_wait), clients=scale.clients) as load:
        for _ in range(scale.repetitions):
            load.wait_for_successes(scale.requests)
            outage_seconds.append(seconds_without_primary(servers, load, may_lose_seconds=MAX_LOSS_SECONDS))

    assert load.violations == []
    assert load.failure_statuses == {503}
    assert max(outage_seconds) < MAX_RECOVERY_SECONDS


@SCALES
def test_a_demoted_primary_is_not_used_after_it_resumes(
    servers: SentinelServers, replicas: list[Replica], scale: Scale
) -> None:
    with Load(urls_of(replicas), clients=scale.clients) as load:
        for _ in range(scale.repetitions):
            load.wait_for_successes(scale.requests)
            old = servers.primary
            old.pause()
            servers.wait_until_replaced(old)
            load.wait_for_successes(scale.requests)
            old.resume()
            servers.wait_until_settled()
            load.wait_until_stable()

    assert load.violations == []
    assert load.failure_statuses <= {503}


def test_an_idle_replica_does_not_use_a_demoted_primary(servers: SentinelServers, replicas: list[Replica]) -> None:
    busy, idle = replicas
    _, session = busy.call("POST", SESSIONS, {"agentId": AGENT, "userId": USER})
    path = f"{SESSIONS}/{session['sessionId']}"
    idle.call("POST", f"{path}/renew")
    idle.call("GET", path)
    old = servers.primary
    old.pause()
    servers.wait_until_replaced(old)
    changed = repeat_until_available(busy, "PATCH", f"{path}/metadata", {"written": "to the new primary"})
    old.resume()

    assert idle.call("GET", path)[1]["metadata"] == changed["metadata"]
    assert idle.call("POST", f"{path}/renew")[0] == 200


@SCALES
def test_a_planned_failover_loses_no_change_that_all_replicas_have(
    servers: SentinelServers, replica_with_full_wait: list[Replica], scale: Scale
) -> None:
    outage_seconds = []
    with Load(urls_of(replica_with_full_wait), clients=scale.clients, reads_are_durable=False) as load:
        for _ in range(scale.repetitions):
            load.wait_for_successes(scale.requests)
            started_at = time.time()
            servers.fail_over()
            outage_seconds.append(load.wait_until_stable() - started_at)
            servers.wait_until_settled()
            servers.wait_until_following()

    assert load.violations == []
    assert load.failure_statuses <= {503}
    assert max(outage_seconds) < MAX_RECOVERY_SECONDS


@SCALES
def test_requests_succeed_while_all_sentinels_are_down(
    servers: SentinelServers, replicas: list[Replica], scale: Scale
) -> None:
    with Load(urls_of(replicas), clients=scale.clients) as load:
        for sentinel in servers.sentinels:
            sentinel.kill()
        load.run_for(scale.seconds)
        load.wait_for_successes(scale.requests)

    assert load.violations == []
    assert load.failures() == []


def test_the_service_starts_while_a_sentinel_is_down(servers: SentinelServers, start_replica: StartReplica) -> None:
    servers.sentinels[0].kill()

    replica = start_replica(REDIS_URL=servers.url, **LONG_STORE_TIMEOUT)
    created, _ = replica.call("POST", SESSIONS, {"agentId": AGENT, "userId": USER})
    ready, _ = replica.call("GET", "/readyz")

    assert (created, ready) == (201, 200)


def seconds_without_primary(servers: SentinelServers, load: Load, may_lose_seconds: float | None = None) -> float:
    """Kill the primary, and restart it as a replica. Returns how long requests failed."""
    old = servers.primary
    old.kill()
    killed_at = time.time()
    load.wait_for_failures()
    if may_lose_seconds is not None:
        load.checker.allow_loss_after(killed_at - may_lose_seconds)
    new = servers.wait_until_replaced(old)
    stable_at = load.wait_until_stable()
    old.start()
    old.command("REPLICAOF", "127.0.0.1", new.port)
    servers.wait_until_settled()
    servers.wait_until_following()
    return stable_at - killed_at


def repeat_until_available(replica: Replica, method: str, path: str, body: object) -> dict[str, Any]:
    """Return the body of the first response other than 503."""
    deadline = time.monotonic() + MAX_RECOVERY_SECONDS
    while (response := replica.call(method, path, body))[0] == 503:
        assert time.monotonic() < deadline, response
    content: dict[str, Any] = response[1]
    return content
