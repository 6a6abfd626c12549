"""Redis servers, reconcilers and lost sessions for the tests of maintenance."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.maintenance.reconciler import Reconciler
from service.observability.metrics import Metrics
from service.redis_client.factory import redis_py_client
from service.sessions.session import Session
from service.settings import Settings
from tests.conftest import HttpClient, ServiceServer
from tests.maintenance.reconcilers import new_reconciler
from tests.redis_contents import KEYS
from tests.redis_server import RedisServer


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def stopped_redis(data_dir: Path) -> Iterator[RedisServer]:
    """A server that is not started yet. The fixture stops it after the test."""
    server = RedisServer(data_dir)
    yield server
    server.stop()


@pytest.fixture
def paused_redis(data_dir: Path) -> Iterator[RedisServer]:
    """A server that accepts connections and does not respond."""
    server = RedisServer(data_dir)
    server.start()
    server.pause()
    yield server
    server.stop()


@pytest.fixture
async def client_of_paused_redis(paused_redis: RedisServer, aiohttp_client: AiohttpClient) -> HttpClient:
    settings = Settings(session_store_timeout_seconds=2)
    return await aiohttp_client(ServiceServer(settings, redis_py_client(paused_redis.url, 2)))


@pytest.fixture
async def lost_session(session: Session, real_redis: Redis) -> Session:
    """A session whose hash was deleted in Redis."""
    await real_redis.delete(KEYS.session(session.id))
    return session


@pytest.fixture
async def reconciler(
    session: Session, real_redis: Redis, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> Reconciler:
    """Reconciles only the shard of `session`."""
    monkeypatch.setattr("service.maintenance.reconciler.SHARDS", (session.id[:2],))
    return new_reconciler(real_redis, metrics)
