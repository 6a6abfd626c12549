"""A Redis server with a proxy in front of it, and service processes on both. All tests of the package share them."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from service.sessions.keys import Keys
from tests.faults.proxy import Proxy
from tests.redis_server import RedisServer
from tests.replica import Replica

SHORT_STORE_TIMEOUT = {
    "SESSION_STORE_TIMEOUT_SECONDS": "2",
    "SESSION_MIN_TIMEOUT_MINUTES": "0.01",
    "SESSION_SWEEP_INTERVAL_SECONDS": "1",
}
"""Settings of tests in which the service must notice an outage quickly."""

LONG_STORE_TIMEOUT = {**SHORT_STORE_TIMEOUT, "SESSION_STORE_TIMEOUT_SECONDS": "20"}
"""Settings of tests in which no request may fail, even on a busy machine."""


@pytest.fixture(scope="package")
def servers() -> Iterator[tuple[RedisServer, Proxy]]:
    with tempfile.TemporaryDirectory() as folder:
        server, proxy = RedisServer(Path(folder), append_only=True), Proxy(Path(folder) / "valkey.sock")
        server.start()
        proxy.start()
        yield server, proxy
        proxy.stop()
        server.stop()


@pytest.fixture(scope="package")
def proxied_replicas(servers: tuple[RedisServer, Proxy]) -> Iterator[list[Replica]]:
    """Two service processes that reach Redis through the proxy, with a short timeout."""
    with started(*(Replica(REDIS_URL=servers[1].url, **SHORT_STORE_TIMEOUT) for _ in range(2))) as replicas:
        yield replicas


@pytest.fixture(scope="package")
def direct_replicas(servers: tuple[RedisServer, Proxy]) -> Iterator[list[Replica]]:
    """Two service processes that reach Redis directly, with a long timeout."""
    with started(*(Replica(REDIS_URL=servers[0].url, **LONG_STORE_TIMEOUT) for _ in range(2))) as replicas:
        yield replicas


@pytest.fixture
def own_redis(servers: tuple[RedisServer, Proxy]) -> Iterator[RedisServer]:
    """The Redis server, without sessions."""
    server, _ = servers
    _delete_sessions(server)
    yield server
    server.resume()
    server.command("CONFIG", "SET", "maxmemory", 0)


@pytest.fixture
def proxy(servers: tuple[RedisServer, Proxy]) -> Iterator[Proxy]:
    _, proxy = servers
    yield proxy
    proxy.forward()


@contextmanager
def started(*replicas: Replica) -> Iterator[list[Replica]]:
    """Start the replicas in parallel, and wait until they are ready. Stop all that are in the list at the end."""
    running = list(replicas)
    with ThreadPoolExecutor(len(replicas)) as pool:
        list(pool.map(_start, running))
        try:
            yield running
        finally:
            list(pool.map(Replica.stop, running))


def _start(replica: Replica) -> None:
    replica.start()
    status, body = replica.call("GET", "/readyz")
    assert status == 200, body


def urls_of(replicas: list[Replica]) -> list[str]:
    return [replica.url for replica in replicas]


def _delete_sessions(server: RedisServer) -> None:
    """Delete all keys but the secret that the running replicas share. They would replace it if it were gone."""
    with redis.Redis.from_url(server.admin_url) as client:
        if keys := [key for key in client.scan_iter() if key.decode() != Keys("").secret]:
            client.delete(*keys)
