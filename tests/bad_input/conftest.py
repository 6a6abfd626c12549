"""One service for all tests that send only invalid input. It starts once per test process."""

from collections.abc import AsyncIterator

import pytest_asyncio
from aiohttp.test_utils import TestClient
from redis.asyncio import Redis

from service.redis_client.factory import redis_py_client
from service.settings import Settings
from tests.conftest import HttpClient, ServiceServer
from tests.redis_server import RedisServer


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def shared_redis(redis_server: RedisServer) -> AsyncIterator[Redis]:
    """The Redis of `service`. It keeps the sessions of earlier tests."""
    redis_server.command("FLUSHALL")
    client = redis_py_client(redis_server.admin_url, 10)
    yield client
    await client.flushall()
    await client.aclose()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def service(shared_redis: Redis) -> AsyncIterator[HttpClient]:
    """A client of a service with default settings."""
    async with TestClient(ServiceServer(Settings(), shared_redis)) as client:
        yield client
