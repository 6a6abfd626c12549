"""Tests slow clients and too many clients against a service as a process, on its own event loop."""

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

MAX_CONNECTIONS = 5
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
MANY_REQUESTS = LIVEZ.replace(b"/livez", b"/openapi.json") * 500
INCOMPLETE_HEAD = b"GET /livez HTTP/1.1\r\n"
INCOMPLETE_BODY = (
    f"POST {SESSIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{{"
).encode()


@pytest.fixture(scope="module")
def replica(redis_server: RedisServer) -> Iterator[Replica]:
    replica = Replica(
        REDIS_URL=redis_server.url,
        SESSION_REQUEST_TIMEOUT_SECONDS="0.5",
        SESSION_MAX_CONNECTIONS=str(MAX_CONNECTIONS),
    )
    replica.start()
    yield replica
    replica.stop()


@pytest.fixture(autouse=True)
def _no_other_connections(replica: Replica) -> None:
    wait_until(lambda: connections_of(replica) == 0, "the connections of the previous test are closed")


def connect(replica: Replica) -> socket.socket:
    address = urlsplit(replica.url)
    return socket.create_connection((address.hostname, address.port or 0), timeout=50)


def receive_all(client: socket.socket) -> bytes:
    """Return all data that the service sends before it closes the connection."""
    received = bytearray()
    while part := client.recv(65536):
        received += part
    return bytes(received)


def connections_of(replica: Replica) -> int:
    """Return the number of other connections, or the maximum if the service rejects this one."""
    address = urlsplit(replica.url)
    with closing(http.client.HTTPConnection(str(address.hostname), address.port, timeout=50)) as client:
        client.request("GET", "/metrics")
        match = re.search(rb"^sessions_http_connections (\d+)", client.getresponse().read(), re.MULTILINE)
    return int(match[1]) - 1 if match else MAX_CONNECTIONS


@pytest.mark.parametrize("sent", [INCOMPLETE_HEAD, INCOMPLETE_BODY], ids=["head", "body"])
def test_an_incomplete_request_times_out_with_408(replica: Replica, sent: bytes) -> None:
    with connect(replica) as client:
        client.sendall(sent)
        response = receive_all(client)

    assert response.split(b" ")[1] == b"408"
    assert json.loads(response.partition(b"\r\n\r\n")[2])["code"] == "REQUEST_TIMEOUT"


def test_a_connection_without_a_request_is_closed(replica: Replica) -> None:
    with connect(replica) as client:
        assert receive_all(client) == b""


@pytest.mark.parametrize("sent", [MANY_REQUESTS, MANY_REQUESTS + b"nonsense\r\n\r\n"], ids=["keep-alive", "closing"])
def test_a_client_that_reads_no_response_is_disconnected(replica: Replica, sent: bytes) -> None:
    with connect(replica) as client:
        client.sendall(sent)
        wait_until(lambda: connections_of(replica) == 0, "the client is disconnected")


def test_a_connection_above_the_maximum_is_rejected_with_503(replica: Replica) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(replica)) for _ in range(MAX_CONNECTIONS)]
        for client in clients:
            client.sendall(LIVEZ)
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        rejection = receive_all(stack.enter_context(connect(replica)))
        clients[0].sendall(LIVEZ)
        response = clients[0].recv(65536)

    assert rejection.startswith(b"HTTP/1.1 503 ")
    assert json.loads(rejection.partition(b"\r\n\r\n")[2])["code"] == "TOO_MANY_CONNECTIONS"
    assert response.startswith(b"HTTP/1.1 200 ")


def test_a_client_that_sends_at_once_reads_the_rejection(replica: Replica) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(replica)) for _ in range(MAX_CONNECTIONS)]
        for client in clients:
            client.sendall(LIVEZ)
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        address = urlsplit(replica.url)
        rejected = http.client.HTTPConnection(str(address.hostname), address.port, timeout=50)
        rejected.request("POST", SESSIONS, "{}", {"Content-Type": "application/json"})
        response = rejected.getresponse()
        rejected.close()

    assert (response.status, response.headers["Retry-After"]) == (503, "1")


def test_the_service_remains_available_without_errors_in_its_log(replica: Replica) -> None:
    assert replica.call("GET", "/livez")[0] == 200
    assert "Traceback" not in replica.output
    assert "Exception" not in replica.output
