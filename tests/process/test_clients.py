"""The service as a process, on the event loop that it has there, with clients that are slow, deaf or many."""

import http.client
import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from urllib.parse import urlsplit

import pytest

from tests.redis_server import RedisServer, wait_until
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

MOST = 5
ALIVE = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
MANY = ALIVE.replace(b"/livez", b"/openapi.json") * 500
OPENING = (
    f"POST {SESSIONS} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{{".encode()
)


@pytest.fixture(scope="module")
def replica(redis_server: RedisServer) -> Iterator[Replica]:
    replica = Replica(
        REDIS_URL=redis_server.url, SESSION_REQUEST_TIMEOUT_SECONDS="0.5", SESSION_MAX_CONNECTIONS=str(MOST)
    )
    replica.start()
    yield replica
    replica.stop()


def connection_to(replica: Replica) -> socket.socket:
    address = urlsplit(replica.url)
    return socket.create_connection((address.hostname, address.port or 0), timeout=20)


def heard_on(client: socket.socket) -> bytes:
    """All that comes until the service hangs up."""
    heard = bytearray()
    while part := client.recv(65536):
        heard += part
    return bytes(heard)


def connected_to(replica: Replica) -> int:
    """How many clients are, beside the one that asks; as many as may be, where that is not let in."""
    address = urlsplit(replica.url)
    with closing(http.client.HTTPConnection(str(address.hostname), address.port, timeout=20)) as client:
        client.request("GET", "/metrics")
        found = re.search(rb"^sessions_http_connections (\d+)", client.getresponse().read(), re.MULTILINE)
    return int(found[1]) - 1 if found else MOST


@pytest.fixture(autouse=True)
def _alone(replica: Replica) -> None:
    """Those of the test before have gone."""
    wait_until(lambda: connected_to(replica) == 0, "all have gone")


@pytest.mark.parametrize("sent", [b"GET /livez HTTP/1.1\r\n", OPENING], ids=["a head", "a body"])
def test_a_request_that_is_not_whole_in_time_is_refused(replica: Replica, sent: bytes) -> None:
    with connection_to(replica) as client:
        client.sendall(sent)
        answer = heard_on(client)

    assert answer.split(b" ")[1] == b"408"
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "REQUEST_TIMEOUT"


def test_a_client_that_says_nothing_is_hung_up_on(replica: Replica) -> None:
    with connection_to(replica) as client:
        assert heard_on(client) == b""


@pytest.mark.parametrize("sent", [MANY, MANY + b"nonsense\r\n\r\n"], ids=["kept", "about to be closed"])
def test_a_client_that_takes_no_answer_is_dropped(replica: Replica, sent: bytes) -> None:
    with connection_to(replica) as client:
        client.sendall(sent)
        wait_until(lambda: connected_to(replica) == 0, "it is dropped")


def test_one_client_too_many_is_told_so_and_the_others_are_served(replica: Replica) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(connection_to(replica)) for _ in range(MOST)]
        for client in clients:
            client.sendall(ALIVE)
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        answer = heard_on(stack.enter_context(connection_to(replica)))
        clients[0].sendall(ALIVE)
        served = clients[0].recv(65536)

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "TOO_MANY_CONNECTIONS"
    assert served.startswith(b"HTTP/1.1 200 ")


def test_one_that_asks_at_once_reads_why_it_is_not_served(replica: Replica) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(connection_to(replica)) for _ in range(MOST)]
        for client in clients:
            client.sendall(ALIVE)
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        address = urlsplit(replica.url)
        one_more = http.client.HTTPConnection(str(address.hostname), address.port, timeout=20)
        one_more.request("POST", SESSIONS, "{}", {"Content-Type": "application/json"})
        response = one_more.getresponse()
        one_more.close()

    assert (response.status, response.headers["Retry-After"]) == (503, "1")


def test_after_all_of_that_it_is_well(replica: Replica) -> None:
    assert replica.call("GET", "/livez")[0] == 200
    assert "Traceback" not in replica.banner
    assert "Exception" not in replica.banner
