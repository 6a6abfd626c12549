"""Invalid HTTP on raw connections to a service process."""

import gzip
import http.client
import json
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from service.settings import MAX_BODY_BYTES
from tests.bad_input.helpers import UNKNOWN_ID
from tests.redis_server import RedisServer
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

HEARTBEAT = f"{SESSIONS}/{UNKNOWN_ID}/heartbeat"
LIVENESS_PROBE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Response(NamedTuple):
    status: int
    content_type: str
    body: bytes

    @property
    def code(self) -> str:
        code: str = json.loads(self.body)["code"]
        return code


@pytest.fixture(scope="module")
def replica(redis_server: RedisServer) -> Iterator[Replica]:
    replica = Replica(REDIS_URL=redis_server.url)
    replica.start()
    yield replica
    replica.stop()


def post(headers: bytes, body: bytes, *, path: str = SESSIONS, content_type: bytes = b"application/json") -> bytes:
    start = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: %b\r\n" % (path.encode(), content_type)
    return start + headers + b"\r\n\r\n" + body


@contextmanager
def connected_to(replica: Replica) -> Iterator[socket.socket]:
    address = urlsplit(replica.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        yield connection


def send(replica: Replica, request: bytes) -> Response:
    (response,) = send_all(replica, request)
    return response


def send_all(replica: Replica, *requests: bytes) -> list[Response]:
    """Send the requests over one connection, each after the response to the previous one."""
    with connected_to(replica) as connection:
        return [_send_over(connection, request) for request in requests]


def _send_over(connection: socket.socket, request: bytes) -> Response:
    connection.sendall(request)
    with http.client.HTTPResponse(connection) as response:
        response.begin()
        return Response(response.status, response.headers["Content-Type"], response.read())


def log_lines_of(replica: Replica, action: Callable[[], object]) -> list[dict[str, Any]]:
    """Return the lines that the service logs during `action`."""
    start = _end_of_log(replica)
    action()
    end = _end_of_log(replica)
    lines = [json.loads(line) for line in replica.output[start:end].splitlines()]
    return lines[:-1]


def _end_of_log(replica: Replica) -> int:
    """Return the length of the log after the line of a request with a new id."""
    request_id = uuid4().hex
    send(replica, b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: %b\r\n\r\n" % request_id.encode())
    line = replica.wait_for_line(request_id)
    return replica.output.index(line) + len(line) + 1


INVALID_REQUESTS = {
    "no request line": b"nonsense\r\n\r\n",
    "random bytes": b"\x00\x01\xfe\xff\r\n\r\n",
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "version 0.9": b"GET /livez HTTP/0.9\r\nHost: localhost\r\n\r\n",
    "version 2.0": b"GET /livez HTTP/2.0\r\nHost: localhost\r\n\r\n",
    "version 9.9": b"GET /livez HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "an unknown method": b"NONSENSE /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a raw byte in the path": b"GET " + SESSIONS.encode() + b"/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a raw byte in the query": b"GET /livez?\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a broken absolute URL": b"GET http://[::1/livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an impossible port": b"GET http://a:99999999/livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a NUL in a header": b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
    "a folded header": b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
    "a negative length": post(b"Content-Length: -1", b""),
    "a length beyond 64 bits": post(b"Content-Length: 99999999999999999999", b"{}"),
    "two lengths": post(b"Content-Length: 2\r\nContent-Length: 3", b"{}"),
    "a length and chunks": post(b"Content-Length: 2\r\nTransfer-Encoding: chunked", b"{}"),
    "an unknown transfer encoding": post(b"Transfer-Encoding: nonsense", b"{}"),
    "an invalid first chunk": post(b"Transfer-Encoding: chunked", b"zz\r\n{}\r\n0\r\n\r\n"),
    "invalid gzip": post(b"Content-Encoding: gzip\r\nContent-Length: 8", b"nonsense"),
    "invalid deflate": post(b"Content-Encoding: deflate\r\nContent-Length: 8", b"nonsense"),
    "truncated gzip": post(b"Content-Encoding: gzip\r\nContent-Length: 12", gzip.compress(b"{}")[:12]),
}


@pytest.mark.parametrize("request_bytes", INVALID_REQUESTS.values(), ids=INVALID_REQUESTS)
def test_an_invalid_request_is_a_bad_request(replica: Replica, request_bytes: bytes) -> None:
    response = send(replica, request_bytes)

    error = json.loads(response.body)
    assert response.status == 400
    assert response.content_type == "application/json"
    assert error["success"] is False
    assert error["code"] == error["error"]["code"]
    assert b"Traceback" not in response.body
    assert str(Path.cwd()).encode() not in response.body
    assert send(replica, LIVENESS_PROBE).status == 200


@pytest.mark.parametrize("path", [SESSIONS, HEARTBEAT], ids=["body is read", "body is ignored"])
@pytest.mark.parametrize("encoding", [b"gzip", b"deflate"])
def test_an_invalid_compressed_body_is_one_line_in_the_log(replica: Replica, encoding: bytes, path: str) -> None:
    request = post(b"Content-Encoding: %b\r\nContent-Length: 8" % encoding, b"nonsense", path=path)

    lines = log_lines_of(replica, lambda: send(replica, request))

    assert [(line["event"], line["level"]) for line in lines] == [("request", "info")]


def test_an_ignored_body_is_not_decompressed(replica: Replica) -> None:
    request = post(b"Content-Encoding: gzip\r\nContent-Length: 8", b"nonsense", path=HEARTBEAT)

    responses = send_all(replica, request, LIVENESS_PROBE)

    assert [response.status for response in responses] == [404, 200]


def test_a_client_may_disconnect_during_its_body(replica: Replica) -> None:
    with connected_to(replica) as connection:
        connection.sendall(post(b"Expect: 100-continue\r\nContent-Length: 100", b""))
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 Continue")

    assert send(replica, LIVENESS_PROBE).status == 200


def test_a_client_may_disconnect_before_it_receives_100_continue(replica: Replica) -> None:
    def disconnect() -> None:
        with connected_to(replica) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            ready = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
            connection.sendall(ready + post(b"Expect: 100-continue\r\nContent-Length: 9", b""))
        send_all(replica, ready, ready)

    lines = log_lines_of(replica, disconnect)

    assert [line for line in lines if line["level"] == "error"] == []


def test_a_content_type_with_other_than_ascii_characters_is_unsupported(replica: Replica) -> None:
    response = send(replica, post(b"Content-Length: 2", b"{}", content_type=b"text/\xff"))

    assert (response.status, response.code) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("path", [SESSIONS, "/nowhere"])
@pytest.mark.parametrize("expectation", [b"nonsense", b"\xff", b"100-continue, \xff"])
def test_an_unknown_expectation_fails(replica: Replica, expectation: bytes, path: str) -> None:
    response = send(replica, post(b"Content-Length: 2\r\nExpect: " + expectation, b"{}", path=path))

    assert (response.status, response.code) == (417, "EXPECTATION_FAILED")


@pytest.mark.parametrize("target", [b"/nowhere}", SESSIONS.encode() + b"/}x", b"//[x", b"/%"])
def test_a_target_with_unusual_characters_is_not_found(replica: Replica, target: bytes) -> None:
    response = send(replica, b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % target)

    assert response.status == 404
    assert json.loads(response.body)["success"] is False


def test_the_service_does_not_wait_for_a_body_that_is_too_large(replica: Replica) -> None:
    response = send(replica, post(b"Content-Length: 999999999", b" " * (MAX_BODY_BYTES + 1)))

    assert response.status == 413
    assert json.loads(response.body)["details"] == {"maxBytes": 65_536}
