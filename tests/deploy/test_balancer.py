"""The balancer's configuration, run by HAProxy before real replicas. Without HAProxy this is skipped, alone of all."""

import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.client import RemoteDisconnected
from pathlib import Path

import pytest

from tests.balancer import Balancer, Deserter, call_over
from tests.conftest import AGENT, USER, StartReplica
from tests.redis_server import RedisServer, free_port
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

pytestmark = pytest.mark.skipif(
    shutil.which("haproxy") is None, reason="needs HAProxy: apt-get install haproxy, or brew install haproxy"
)

NEW = {"agentId": AGENT, "userId": USER}
UNKNOWN = f"{SESSIONS}/4716d2ea-673d-47d0-b1bd-33202db7411b"
CHANGES = pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])

Balance = Callable[..., Balancer]


@pytest.fixture
def balance(tmp_path: Path) -> Iterator[Balance]:
    """Starts balancers before addresses, and stops them after the test."""
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
def balancer(balance: Balance, replicas: list[Replica]) -> Balancer:
    return balance(*(address_of(replica) for replica in replicas))


@pytest.fixture
def deserters() -> Iterator[list[Deserter]]:
    deserters = [Deserter(), Deserter()]
    for deserter in deserters:
        deserter.start()
    yield deserters
    for deserter in deserters:
        deserter.stop()


def address_of(replica: Replica) -> str:
    return replica.url.removeprefix("http://")


def statuses_while_stopping(balancer: Balancer, path: str, replica: Replica) -> set[int]:
    """What heartbeats over one connection are answered from before a replica is told to stop until it has."""
    with ThreadPoolExecutor(1) as pool, closing(balancer.connection()) as connection:
        statuses = {call_over(connection, "POST", path).status}
        stopping = pool.submit(replica.stop)
        while not stopping.done():
            statuses.add(call_over(connection, "POST", path).status)
    return statuses


def test_requests_are_spread_over_the_replicas(balancer: Balancer, replicas: list[Replica]) -> None:
    statuses = [balancer.call("GET", UNKNOWN).status for _ in range(10)]

    assert statuses == [404] * 10
    assert [replica.line_with("{session_id}") for replica in replicas]


def test_what_a_client_says_of_its_address_does_not_reach_the_replicas(
    balance: Balance, redis_server: RedisServer, start_replica: StartReplica
) -> None:
    limited = {"TRUSTED_PROXIES": "127.0.0.0/8", "SESSION_GUESSES_PER_ADDRESS": "5/hour", "SESSION_KEY_PREFIX": "b:"}
    replicas = [start_replica(REDIS_URL=redis_server.url, **limited) for _ in range(2)]
    balancer = balance(*(address_of(replica) for replica in replicas))

    statuses = [balancer.call("GET", UNKNOWN, X_Forwarded_For=f"203.0.113.{number}").status for number in range(8)]

    assert statuses == [404] * 5 + [429] * 3


def test_a_killed_replica_costs_no_read(balancer: Balancer, replicas: list[Replica]) -> None:
    session = balancer.call("POST", SESSIONS, NEW).headers["Location"]

    with ThreadPoolExecutor(8) as pool:
        reads = pool.map(lambda _: balancer.call("GET", session).status, range(600))
        statuses = [next(reads)]
        replicas[0].signal(signal.SIGKILL)
        statuses.extend(reads)

    assert Counter(statuses) == {200: 600}


def test_a_replica_that_stops_costs_no_change(
    balance: Balance, redis_server: RedisServer, start_replica: StartReplica, replicas: list[Replica]
) -> None:
    stopping = start_replica(REDIS_URL=redis_server.url, SESSION_DRAIN_PAUSE_SECONDS="3")
    balancer = balance(address_of(stopping), address_of(replicas[0]))
    session = balancer.call("POST", SESSIONS, NEW).headers["Location"]

    assert statuses_while_stopping(balancer, f"{session}/heartbeat", stopping) == {200}


def test_replicas_that_do_not_listen_yet_cost_no_change(balance: Balance, replicas: list[Replica]) -> None:
    starting = [f"127.0.0.1:{free_port()}" for _ in range(3)]
    balancer = balance(*starting, address_of(replicas[0]))

    with ThreadPoolExecutor(8) as pool:
        statuses = Counter(pool.map(lambda _: balancer.call("POST", SESSIONS, NEW).status, range(100)))

    assert statuses == {201: 100}


@CHANGES
def test_a_change_is_not_sent_again(balance: Balance, deserters: list[Deserter], method: str) -> None:
    answer = balance(*(deserter.address for deserter in deserters)).call(method, UNKNOWN, {})

    assert (answer.status, answer.code) == (502, "REPLICA_FAILED")
    assert sum(deserter.requests for deserter in deserters) == 1


@CHANGES
def test_nor_is_a_change_on_a_connection_in_use(balance: Balance, deserters: list[Deserter], method: str) -> None:
    balancer = balance(*(deserter.address for deserter in deserters))

    with closing(balancer.connection()) as connection, suppress(RemoteDisconnected):
        call_over(connection, "GET", "/readyz")
        call_over(connection, method, UNKNOWN, {})

    assert sum(deserter.requests for deserter in deserters) == 1


def test_a_read_is_sent_to_every_replica_before_it_fails(balance: Balance, deserters: list[Deserter]) -> None:
    answer = balance(*(deserter.address for deserter in deserters)).call("GET", UNKNOWN)

    assert (answer.status, answer.code) == (502, "REPLICA_FAILED")
    assert sorted(deserter.requests for deserter in deserters) == [2, 3]


def test_without_a_ready_replica_it_refuses_in_our_words(balance: Balance, start_replica: StartReplica) -> None:
    unready = start_replica(REDIS_URL="unix:///nowhere/redis.sock")

    refusal = balance(address_of(unready)).until(SESSIONS, "NO_REPLICA_READY")

    assert (refusal.status, refusal.headers["Retry-After"], refusal.headers["Cache-Control"]) == (503, "1", "no-store")
    assert refusal.body["error"]["code"] == "NO_REPLICA_READY"
    assert refusal.headers["X-Request-ID"]


def test_a_replica_that_becomes_ready_is_used(balance: Balance, start_replica: StartReplica, data_dir: Path) -> None:
    server = RedisServer(data_dir)
    balancer = balance(address_of(start_replica(REDIS_URL=server.url)))
    balancer.until(SESSIONS, "NO_REPLICA_READY")

    server.start()
    answer = balancer.until(SESSIONS, None)
    server.stop()

    assert answer.status == 200


def test_an_id_of_a_request_goes_through_and_comes_back(balance: Balance, replicas: list[Replica]) -> None:
    answer = balance(address_of(replicas[0])).call("GET", UNKNOWN, X_Request_ID="mine-1")

    assert answer.headers["X-Request-ID"] == "mine-1"
    assert replicas[0].line_with('"mine-1"')


@pytest.mark.parametrize(
    "named",
    [{}, {"X_Request_ID": "no blanks"}, {"X_Request_ID": 'mine-1,no"quotes'}, {"X_Request_ID": "mine-1,mine-2"}],
    ids=["none", "unfit", "one of two unfit", "two"],
)
def test_a_request_without_an_id_is_given_one(balance: Balance, replicas: list[Replica], named: dict[str, str]) -> None:
    answer = balance(address_of(replicas[0])).call("GET", UNKNOWN, **named)

    assert len(answer.headers["X-Request-ID"]) == 36
    assert replicas[0].line_with(answer.headers["X-Request-ID"])
