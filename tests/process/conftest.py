"""Fixtures of running services."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import StartReplica
from tests.process.worker_processes import TWO_WORKERS
from tests.redis_server import RedisServer
from tests.replica import Replica


@pytest.fixture
def own_redis(data_dir: Path) -> Iterator[RedisServer]:
    """Return a Redis server of the test, which starts it, and may pause or stop it."""
    server = RedisServer(data_dir)
    yield server
    server.stop()


@pytest.fixture
def pair(redis_server: RedisServer, start_replica: StartReplica) -> Replica:
    """Start a service with two workers."""
    return start_replica(REDIS_URL=redis_server.url, **TWO_WORKERS)
