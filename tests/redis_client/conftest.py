"""Helpers for tests of the Redis client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.observability.metrics import Metrics
from service.redis_client.batch import Replication
from service.redis_client.client import RedisClient
from service.redis_client.factory import client_factory
from service.redis_client.monitor import StoreMonitor
from service.sessions.scripts import SCRIPTS


@asynccontextmanager
async def connected(
    url: str, timeout_seconds: float = 10, replication: Replication | None = None
) -> AsyncIterator[RedisClient]:
    """A client that is closed when the context ends."""
    factory = client_factory(url, timeout_seconds, StoreMonitor(Metrics()), SCRIPTS)
    client = factory.new_client(replication)
    try:
        yield client
    finally:
        await client.aclose()
        await factory.aclose()
