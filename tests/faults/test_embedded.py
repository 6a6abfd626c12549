"""The embedded server's process is killed: it is started again, and what had reached the disk is there."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.faults.conftest import SETTINGS, started
from tests.faults.lengths import LENGTHS, Length
from tests.faults.load import Load
from tests.faults.remains import half_written
from tests.replica import Replica


@pytest.fixture
def replica(data_dir: Path) -> Iterator[Replica]:
    with started(Replica(SESSION_DATA_DIR=str(data_dir), **SETTINGS)) as replicas:
        yield replicas[0]


@LENGTHS
def test_a_killed_embedded_server_is_started_again_with_its_sessions(
    replica: Replica, data_dir: Path, length: Length
) -> None:
    with Load([replica.url], clients=length.clients) as load:
        for _ in range(length.times):
            load.until_answered(length.steady)
            written = kill_after_a_write_to_disk(data_dir)
            load.until_failed()
            load.checker.doubt_since(written)
            load.until_well()

    assert load.wrong == []
    assert {answer.status for answer in load.failures()} == {503}
    assert half_written(url_in(data_dir), load.checker.sessions) == []


def kill_after_a_write_to_disk(data_dir: Path) -> float:
    """Kill the server as soon as it has written all that it acknowledged before the instant that is returned."""
    with redis.Redis.from_url(url_in(data_dir), single_connection_client=True) as client:
        pid = client.info("server")["process_id"]
        instant = time.time()
        client.set("mark", "of the test", ex=60)
        client.waitaof(1, 0, 5000)
        os.kill(pid, signal.SIGKILL)
    return instant


def url_in(data_dir: Path) -> str:
    return f"unix://{data_dir / 'valkey.sock'}"
