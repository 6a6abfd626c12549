"""Fixtures for commands on a single Redis server."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.redis_client.factory import redis_py_client
from service.redis_client.monitor import StoreMonitor
from service.settings import Settings
from tests.cli.operator import Operator
from tests.redis_server import RedisServer
from tests.unpipelined_client import UnpipelinedClient


@pytest.fixture
def operator(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Operator:
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    return Operator(Settings())


@pytest.fixture
async def redis_client(redis_server: RedisServer, real_redis: Redis) -> AsyncIterator[RedisClient]:
    """The client of the store that creates sessions. Commands do not depend on its kind."""
    redis_client = UnpipelinedClient(redis_py_client(redis_server.admin_url, 10), 10, StoreMonitor(Metrics()))
    yield redis_client
    await redis_client.aclose()
