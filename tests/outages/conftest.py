"""A Redis server that tests may damage, and a service that uses it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_aiohttp.plugin import AiohttpClient

from tests.conftest import HttpClient
from tests.outages.incidents import server_over
from tests.redis_server import RedisServer


@pytest.fixture(scope="module")
def persistent_redis() -> Iterator[RedisServer]:
    """A server that keeps its data over a restart."""
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder), append_only=True)
        server.start()
        yield server
        server.stop()


@pytest.fixture
def own_redis(persistent_redis: RedisServer) -> RedisServer:
    """A server that a test may damage, without data and scripts."""
    persistent_redis.command("FLUSHALL")
    persistent_redis.command("SCRIPT", "FLUSH")
    return persistent_redis


@pytest.fixture
async def service(own_redis: RedisServer, store_timeout_seconds: float, aiohttp_client: AiohttpClient) -> HttpClient:
    return await aiohttp_client(server_over(own_redis, store_timeout_seconds))


@pytest.fixture
def store_timeout_seconds() -> float:
    return 30


@pytest.fixture
def unpersisted_redis(data_dir: Path) -> Iterator[RedisServer]:
    """A server without persistence, except for SAVE."""
    server = RedisServer(data_dir)
    server.start()
    yield server
    server.stop()
