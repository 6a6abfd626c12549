"""Fixtures for services with two workers."""

import pytest

from tests.conftest import StartReplica
from tests.process.worker_processes import TWO_WORKERS
from tests.redis_server import RedisServer
from tests.replica import Replica


@pytest.fixture
def pair(redis_server: RedisServer, start_replica: StartReplica) -> Replica:
    return start_replica(REDIS_URL=redis_server.url, **TWO_WORKERS)
