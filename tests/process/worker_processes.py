"""Connections to the workers of one service, and the ids of their processes."""

import http.client
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from tests.process.service_calls import WAIT_SECONDS
from tests.replica import Replica

TWO_WORKERS = {"SESSION_WORKERS": "2"}

Connection = http.client.HTTPConnection


def connect(replica: Replica) -> Connection:
    address = urlsplit(replica.url)
    assert address.hostname is not None
    return Connection(address.hostname, address.port, timeout=WAIT_SECONDS)


def send(connection: Connection, method: str, path: str, body: str | None = None) -> None:
    connection.request(method, path, body, {"Content-Type": "application/json"})


def receive(connection: Connection) -> tuple[int, str]:
    response = connection.getresponse()
    return response.status, response.read().decode()


def call(connection: Connection, method: str, path: str, body: str | None = None) -> tuple[int, str]:
    send(connection, method, path, body)
    return receive(connection)


def worker_of(connection: Connection) -> str:
    """Return the prefix that one worker gives to all its request ids."""
    connection.request("GET", "/livez")
    response = connection.getresponse()
    response.read()
    return response.headers["X-Request-ID"].partition("-")[0]


@contextmanager
def open_connections(replica: Replica, count: int) -> Iterator[list[Connection]]:
    with ExitStack() as stack:
        yield [stack.enter_context(closing(connect(replica))) for _ in range(count)]


@contextmanager
def connection_to_each_worker(replica: Replica) -> Iterator[list[Connection]]:
    """Open one keep-alive connection to each of two workers."""
    deadline = time.monotonic() + WAIT_SECONDS
    connections: dict[str, Connection] = {}
    with ExitStack() as stack:
        while len(connections) < 2:
            assert time.monotonic() < deadline, connections
            connection = stack.enter_context(closing(connect(replica)))
            connections.setdefault(worker_of(connection), connection)
        yield list(connections.values())


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


class HasPid(Protocol):
    """A process."""

    @property
    def pid(self) -> int: ...


def workers_of(replica: HasPid) -> list[int]:
    """Return the process ids of both workers, without an embedded server, once both have started."""
    deadline = time.monotonic() + WAIT_SECONDS
    while len(workers := children_of(replica.pid)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return workers


def wait_for_status(connection: Connection, path: str, status: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while call(connection, "GET", path)[0] != status:
        assert time.monotonic() < deadline


def wait_for_restart(replica: HasPid, workers: list[int]) -> list[int]:
    """Return the process ids of both workers once one of them is new."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (current := workers_of(replica)) == workers:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return current
