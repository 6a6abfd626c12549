"""Fixtures of the tests that run examples from documents."""

import pytest

from tests.conftest import StartReplica
from tests.redis_server import RedisServer
from tests.replica import Replica


@pytest.fixture
def replica(redis_server: RedisServer, start_replica: StartReplica) -> Replica:
    """A replica with default settings on an empty Redis."""
    redis_server.command("FLUSHALL")
    return start_replica(REDIS_URL=redis_server.url)
