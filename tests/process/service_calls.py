"""Requests to a running service, and conditions to wait for."""

import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis as redis_py

from tests.conftest import AGENT, USER
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

NO_REDIS = {"REDIS_URL": "unix:///nowhere/redis.sock"}

WAIT_SECONDS = 50
"""The maximum time that a test waits for a condition."""


def create_session(replica: Replica, **members: object) -> str:
    """Create a session and return its id. `members` are added to the request body."""
    status, session = replica.call("POST", SESSIONS, {"agentId": AGENT, "userId": USER, **members})
    assert status == 201
    session_id: str = session["sessionId"]
    return session_id


def get_session(replica: Replica, session_id: str) -> tuple[int, Any]:
    return replica.call("GET", f"{SESSIONS}/{session_id}")


def statuses_until(replica: Replica, path: str, status: int) -> set[int]:
    """Request a path until the response has the given status. Returns all statuses."""
    statuses: set[int] = set()
    deadline = time.monotonic() + WAIT_SECONDS
    while status not in statuses:
        assert time.monotonic() < deadline, statuses
        statuses.add(replica.call("GET", path)[0])
    return statuses


def wait_until_refused(replica: Replica) -> None:
    """Wait until the service accepts no new connection."""
    deadline = time.monotonic() + WAIT_SECONDS
    while _accepts_connections(replica):
        assert time.monotonic() < deadline


def embedded_server_process(data_dir: Path) -> int:
    with redis_py.Redis.from_url(f"unix://{data_dir}/valkey.sock") as client:
        process: int = client.info("server")["process_id"]
        return process


@contextmanager
def exited(process: int) -> Iterator[None]:
    """Assert that the process exits during or soon after the block."""
    descriptor = os.pidfd_open(process)
    try:
        yield
        readable, _, _ = select.select([descriptor], [], [], WAIT_SECONDS)
        assert readable, f"{process} still runs"
    finally:
        os.close(descriptor)


def _accepts_connections(replica: Replica) -> bool:
    address = urlsplit(replica.url)
    try:
        socket.create_connection((address.hostname, address.port), timeout=WAIT_SECONDS).close()
    except ConnectionError:
        return False
    return True
