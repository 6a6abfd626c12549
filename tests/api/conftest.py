"""One service with default settings for tests that do not depend on the data of other tests."""

from collections.abc import AsyncIterator

import pytest_asyncio
from aiohttp.test_utils import TestClient

from service.redis_client.factory import redis_py_client
from service.settings import Settings
from tests.conftest import HttpClient, ServiceServer
from tests.redis_server import RedisServer


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def service(redis_server: RedisServer) -> AsyncIterator[HttpClient]:
    """A client of the shared service. Its Redis may contain sessions of earlier tests."""
    redis_server.command("FLUSHALL")  # an earlier test may have left an unsupported schema version
    redis = redis_py_client(redis_server.admin_url, 10)
    async with TestClient(ServiceServer(Settings(), redis)) as client:
        yield client
    await redis.aclose()
