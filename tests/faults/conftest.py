"""Three replicas over a Redis that a test may ill-treat, and a network between them that may fail.

They serve every test, one after the other: a test leaves them well, which is what it is about.
"""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.proxy import Proxy
from tests.redis_server import RedisServer
from tests.replica import Replica

SETTINGS = {
    "SESSION_STORE_TIMEOUT_SECONDS": "0.5",  # an outage is noticed early
    "SESSION_MIN_TIMEOUT_MINUTES": "0.01",  # the load has brief sessions
    "SESSION_SWEEP_INTERVAL_SECONDS": "1",
}

PATIENT = {**SETTINGS, "SESSION_STORE_TIMEOUT_SECONDS": "5"}
"""For tests in which nothing may fail, however busy the machine is."""


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
def replicas(servers: tuple[RedisServer, Proxy]) -> Iterator[list[Replica]]:
    with started(*(Replica(REDIS_URL=servers[1].url, **SETTINGS) for _ in range(3))) as replicas:
        yield replicas


@pytest.fixture(scope="package")
def patient_replicas(servers: tuple[RedisServer, Proxy]) -> Iterator[list[Replica]]:
    with started(*(Replica(REDIS_URL=servers[0].url, **PATIENT) for _ in range(3))) as replicas:
        yield replicas


@pytest.fixture
def own_redis(servers: tuple[RedisServer, Proxy]) -> Iterator[RedisServer]:
    server, _ = servers
    server.command("FLUSHALL")
    yield server
    server.resume()
    server.command("CONFIG", "SET", "maxmemory", 0)


@pytest.fixture
def proxy(servers: tuple[RedisServer, Proxy]) -> Iterator[Proxy]:
    _, proxy = servers
    yield proxy
    proxy.go()


@pytest.fixture
def urls(replicas: list[Replica]) -> list[str]:
    """Of the three replicas."""
    return [replica.url for replica in replicas]


@pytest.fixture
def patient_urls(patient_replicas: list[Replica]) -> list[str]:
    """Of three others, which wait longer for Redis."""
    return [replica.url for replica in patient_replicas]


@contextmanager
def started(*replicas: Replica) -> Iterator[list[Replica]]:
    """All at once, for each takes some seconds; in the end those that were put into the list are stopped too."""
    running = list(replicas)
    with ThreadPoolExecutor(len(replicas)) as pool:
        list(pool.map(Replica.start, running))
        try:
            yield running
        finally:
            list(pool.map(Replica.stop, running))
