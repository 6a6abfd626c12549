"""Tests of deploy/haproxy.cfg, run by HAProxy in front of real replicas; skipped without HAProxy."""

import re
import shutil
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from http.client import RemoteDisconnected
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from service.process.listeners import BACKLOG
from tests.balancer import DEPLOY, Balancer, DisconnectingReplica, send_request
from tests.conftest import AGENT, USER, StartReplica
from tests.redis_server import RedisServer, free_port
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

pytestmark = pytest.mark.skipif(
    shutil.which("haproxy") is None, reason="needs HAProxy: apt-get install haproxy, or brew install haproxy"
)

NEW = {"agentId": AGENT, "userId": USER}
UNKNOWN = f"{SESSIONS}/4716d2ea-673d-47d0-b1bd-33202db7411b"
WRITE_METHODS = pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])

StartBalancer = Callable[..., Balancer]


class BalancedReplica(NamedTuple):
    """A balancer and its only replica."""

    balancer: Balancer
    replica: Replica


@pytest.fixture
def start_balancer(tmp_path: Path) -> Iterator[StartBalancer]:
    """Starts balancers in front of addresses, and stops them after the test."""
    started: list[Balancer] = []

    def start(*addresses: str) -> Balancer:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        balancer = Balancer(folder, addresses)
        started.append(balancer)
        balancer.start()
        return balancer

    yield start
    for balancer in started:
        balancer.stop()


@pytest.fixture
def replicas(redis_server: RedisServer, start_replica: StartReplica) -> list[Replica]:
    redis_server.command("FLUSHALL")
    return [start_replica(REDIS_URL=redis_server.url) for _ in range(2)]


@pytest.fixture
def balancer(start_balancer: StartBalancer, replicas: list[Replica]) -> Balancer:
    return start_balancer(*(address_of(replica) for replica in replicas))


@pytest.fixture(scope="module")
def balanced(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BalancedReplica]:
    """Return a balancer and its only replica, for tests of what both log."""
    replica = Replica(REDIS_URL=redis_server.url)
    replica.start()
    balancer = Balancer(tmp_path_factory.mktemp("b"), [address_of(replica)])
    balancer.start()
    yield BalancedReplica(balancer, replica)
    balancer.stop()
    replica.stop()


@pytest.fixture
def disconnecting_replicas() -> Iterator[list[DisconnectingReplica]]:
    replicas = [DisconnectingReplica(), DisconnectingReplica()]
    for replica in replicas:
        replica.start()
    yield replicas
    for replica in replicas:
        replica.stop()


def address_of(replica: Replica) -> str:
    return replica.url.removeprefix("http://")


def statuses_while_stopping(balancer: Balancer, path: str, replica: Replica) -> set[int]:
    """The statuses of heartbeats sent over one connection until the replica has stopped."""
    with ThreadPoolExecutor(1) as pool, closing(balancer.connection()) as connection:
        statuses = {send_request(connection, "POST", path).status}
        stopping = pool.submit(replica.stop)
        while not stopping.done():
            statuses.add(send_request(connection, "POST", path).status)
    return statuses


def test_requests_are_distributed_over_all_replicas(balancer: Balancer, replicas: list[Replica]) -> None:
    statuses = [balancer.request("GET", UNKNOWN).status for _ in range(10)]

    assert statuses == [404] * 10
    assert [replica.wait_for_line("{session_id}") for replica in replicas]


def test_x_forwarded_for_from_clients_is_replaced(
    start_balancer: StartBalancer, redis_server: RedisServer, start_replica: StartReplica
) -> None:
    limited = {"TRUSTED_PROXIES": "127.0.0.0/8", "SESSION_GUESSES_PER_ADDRESS": "5/hour", "SESSION_KEY_PREFIX": "b:"}
    replicas = [start_replica(REDIS_URL=redis_server.url, **limited) for _ in range(2)]
    balancer = start_balancer(*(address_of(replica) for replica in replicas))

    statuses = [balancer.request("GET", UNKNOWN, X_Forwarded_For=f"203.0.113.{number}").status for number in range(8)]

    assert statuses == [404] * 5 + [429] * 3


def test_no_read_fails_when_a_replica_is_killed(balancer: Balancer, replicas: list[Replica]) -> None:
    session = balancer.request("POST", SESSIONS, NEW).headers["Location"]

    with ThreadPoolExecutor(8) as pool:
        reads = pool.map(lambda _: balancer.request("GET", session).status, range(600))
        statuses = [next(reads)]
        replicas[0].signal(signal.SIGKILL)
        statuses.extend(reads)

    assert Counter(statuses) == {200: 600}


def test_no_change_fails_when_a_replica_shuts_down(
    start_balancer: StartBalancer, redis_server: RedisServer, start_replica: StartReplica, replicas: list[Replica]
) -> None:
    stopping = start_replica(REDIS_URL=redis_server.url, SESSION_DRAIN_PAUSE_SECONDS="3")
    balancer = start_balancer(address_of(stopping), address_of(replicas[0]))
    session = balancer.request("POST", SESSIONS, NEW).headers["Location"]

    assert statuses_while_stopping(balancer, f"{session}/heartbeat", stopping) == {200}


def test_no_change_fails_while_replicas_are_starting(start_balancer: StartBalancer, replicas: list[Replica]) -> None:
    starting = [f"127.0.0.1:{free_port()}" for _ in range(3)]
    balancer = start_balancer(*starting, address_of(replicas[0]))

    with ThreadPoolExecutor(8) as pool:
        statuses = Counter(pool.map(lambda _: balancer.request("POST", SESSIONS, NEW).status, range(100)))

    assert statuses == {201: 100}


@WRITE_METHODS
def test_a_change_is_not_retried(
    start_balancer: StartBalancer, disconnecting_replicas: list[DisconnectingReplica], method: str
) -> None:
    response = start_balancer(*(replica.address for replica in disconnecting_replicas)).request(method, UNKNOWN, {})

    assert (response.status, response.error_code) == (502, "REPLICA_FAILED")
    assert sum(replica.requests for replica in disconnecting_replicas) == 1


@WRITE_METHODS
def test_a_change_on_a_reused_connection_is_not_retried(
    start_balancer: StartBalancer, disconnecting_replicas: list[DisconnectingReplica], method: str
) -> None:
    balancer = start_balancer(*(replica.address for replica in disconnecting_replicas))

    with closing(balancer.connection()) as connection, suppress(RemoteDisconnected):
        send_request(connection, "GET", "/readyz")
        send_request(connection, method, UNKNOWN, {})

    assert sum(replica.requests for replica in disconnecting_replicas) == 1


def test_a_read_is_retried_on_every_replica(
    start_balancer: StartBalancer, disconnecting_replicas: list[DisconnectingReplica]
) -> None:
    response = start_balancer(*(replica.address for replica in disconnecting_replicas)).request("GET", UNKNOWN)

    assert (response.status, response.error_code) == (502, "REPLICA_FAILED")
    assert sorted(replica.requests for replica in disconnecting_replicas) == [2, 3]


def test_without_a_ready_replica_the_response_is_no_replica_ready(
    start_balancer: StartBalancer, start_replica: StartReplica
) -> None:
    unready = start_replica(REDIS_URL="unix:///nowhere/redis.sock")

    response = start_balancer(address_of(unready)).get_until(SESSIONS, "NO_REPLICA_READY")

    assert (response.status, response.headers["Retry-After"], response.headers["Cache-Control"]) == (
        503,
        "1",
        "no-store",
    )
    assert response.body["error"]["code"] == "NO_REPLICA_READY"
    assert response.headers["X-Request-ID"]


@pytest.mark.parametrize("path", ["/livez", "/docs", "/openapi.json", "/readyz", f"{SESSIONS}/health"])
def test_without_a_ready_replica_a_running_replica_describes_itself(
    start_balancer: StartBalancer, start_replica: StartReplica, path: str
) -> None:
    balancer = start_balancer(address_of(start_replica(REDIS_URL="unix:///nowhere/redis.sock")))
    balancer.get_until(SESSIONS, "NO_REPLICA_READY")

    with closing(balancer.connection()) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()

    assert response.status == (503 if path in ("/readyz", f"{SESSIONS}/health") else 200)
    assert b"NO_REPLICA_READY" not in body


def test_slow_bodies_do_not_occupy_connections_to_replicas(balanced: BalancedReplica) -> None:
    head = (
        f"POST {SESSIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{{"
    )
    address = urlsplit(balanced.balancer.url)
    with ExitStack() as stack:
        for _ in range(600):  # more than `maxconn` of a replica
            slow = stack.enter_context(socket.create_connection((address.hostname, address.port)))
            slow.sendall(head.encode())
        status = balanced.balancer.request("GET", UNKNOWN).status

    assert status == 404


def test_other_hosts_and_origins_are_rejected_through_the_balancer(balanced: BalancedReplica) -> None:
    misdirected = balanced.balancer.request("GET", UNKNOWN, Host="attacker.example")
    foreign = balanced.balancer.request("DELETE", UNKNOWN, Origin="https://attacker.example")

    assert (misdirected.status, misdirected.error_code) == (421, "MISDIRECTED_REQUEST")
    assert (foreign.status, foreign.error_code) == (403, "FOREIGN_ORIGIN")


def test_a_replica_receives_requests_once_it_is_ready(
    start_balancer: StartBalancer, start_replica: StartReplica, data_dir: Path
) -> None:
    server = RedisServer(data_dir)
    balancer = start_balancer(address_of(start_replica(REDIS_URL=server.url)))
    balancer.get_until(SESSIONS, "NO_REPLICA_READY")

    server.start()
    response = balancer.get_until(SESSIONS, None)
    server.stop()

    assert response.status == 200


def test_a_valid_request_id_is_forwarded_and_returned(balanced: BalancedReplica) -> None:
    response = balanced.balancer.request("GET", UNKNOWN, X_Request_ID="mine-1")

    assert response.headers["X-Request-ID"] == "mine-1"
    assert balanced.replica.wait_for_line('"mine-1"')


@pytest.mark.parametrize(
    "named",
    [{}, {"X_Request_ID": "no blanks"}, {"X_Request_ID": 'mine-1,no"quotes'}, {"X_Request_ID": "mine-1,mine-2"}],
    ids=["missing", "invalid character", "invalid list", "list"],
)
def test_a_missing_or_invalid_request_id_is_replaced(balanced: BalancedReplica, named: dict[str, str]) -> None:
    response = balanced.balancer.request("GET", UNKNOWN, **named)

    assert len(response.headers["X-Request-ID"]) == 36
    assert balanced.replica.wait_for_line(response.headers["X-Request-ID"])


def test_the_backlog_of_a_replica_holds_all_connections_of_the_balancer() -> None:
    limits = re.findall(r"^ *maxconn (\d+)", (DEPLOY / "haproxy.cfg").read_text(), re.MULTILINE)

    assert [int(limit) <= BACKLOG for limit in limits] == [True]
