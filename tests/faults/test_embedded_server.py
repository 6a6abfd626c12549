"""The process of the embedded server is killed: it starts again with the sessions that were on disk."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.faults.conftest import SHORT_STORE_TIMEOUT, started
from tests.faults.integrity import incomplete_sessions
from tests.faults.load import Load
from tests.faults.scales import SCALES, Scale
from tests.replica import Replica


@pytest.fixture
def replica(data_dir: Path) -> Iterator[Replica]:
    with started(Replica(SESSION_DATA_DIR=str(data_dir), **SHORT_STORE_TIMEOUT)) as replicas:
        yield replicas[0]


@SCALES
def test_a_killed_embedded_server_restarts_with_its_sessions(replica: Replica, data_dir: Path, scale: Scale) -> None:
    with Load([replica.url], clients=scale.clients) as load:
        for _ in range(scale.repetitions):
            load.wait_for_successes(scale.requests)
            written_at = kill_after_write_to_disk(data_dir)
            load.wait_for_failures()
            load.checker.allow_loss_after(written_at)
            load.wait_until_stable()

    assert load.violations == []
    assert load.failure_statuses == {503}
    assert incomplete_sessions(url_in(data_dir), load.checker.sessions) == []


def kill_after_write_to_disk(data_dir: Path) -> float:
    """Kill the server. Returns a time: everything acknowledged before it is on disk."""
    with redis.Redis.from_url(url_in(data_dir), single_connection_client=True) as client:
        pid = client.info("server")["process_id"]
        instant = time.time()
        client.set("test", "", ex=60)
        client.waitaof(1, 0, 5000)
        os.kill(pid, signal.SIGKILL)
    return instant


def url_in(data_dir: Path) -> str:
    return f"unix://{data_dir / 'valkey.sock'}"
