"""Fixtures shared by the tests: Redis servers, Redis clients, session stores, HTTP clients and replicas."""

import fnmatch
import os
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp.test_utils import TestClient, TestServer
from fakeredis import FakeAsyncRedis, FakeServer
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection

from service.api.access_log import AccessLog
from service.api.middleware import ApplicationMiddleware
from service.api.server.server import Runner
from service.app import create_app
from service.observability.event_log import EventLog
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.redis_client.connector import ConnectionFactory, Connector
from service.redis_client.factory import (
    ClientFactory,
    RedisClients,
    client_factory,
    connection_factory,
    redis_py_client,
)
from service.redis_client.monitor import StoreMonitor
from service.redis_client.pipeline import Pipeline
from service.sessions.build import build_session_store
from service.sessions.events import SessionEvents
from service.sessions.keys import Keys
from service.sessions.policies import Policies
from service.sessions.scripts import SCRIPTS
from service.sessions.session import NewSession, Session
from service.sessions.store import SessionStore
from service.settings import Settings
from service.settings.redis_url import Kind
from service.shared_secret import SharedSecret
from tests.cluster_servers import ClusterServers
from tests.collection import pytest_collection_modifyitems as pytest_collection_modifyitems
from tests.collection import pytest_ignore_collect as pytest_ignore_collect
from tests.collection import pytest_itemcollected as pytest_itemcollected
from tests.redis_server import ADMIN, RedisServer
from tests.replica import STORE_TIMEOUT, Replica
from tests.secrets_in_logs import secrets_in
from tests.sentinel_servers import SentinelServers
from tests.subscribers import new_subscriber
from tests.unpipelined_client import UnpipelinedClient

AGENT = "3c90c3cc-0d44-4b50-8888-8dd25736052a"
USER = "7d444840-9dc0-11d1-b245-5ffdce74fad2"

PREFIX = "app:"
"""The key prefix in tests that set one."""

PERSISTENT_KEYS = (
    "sessions:{??}:expiry",
    "sessions:{??}:warning",
    "sessions:{??}:created",
    "sessions:agent:{*}:policy",
    "sessions:layout",
    "sessions:secret",
)
"""Patterns of the keys that do not expire."""

SECRET = SharedSecret()
"""The shared secret of stores that tests create."""
SECRET.load("5e" * 32)

HttpClient = TestClient[Any, Any]

_OPEN_CLIENTS: defaultdict[int, list[RedisClient]] = defaultdict(list)
"""The clients that `redis_client_for` created, by the id of the redis-py client."""

_SHARED_SERVERS: list[Callable[[], Sequence[RedisServer]]] = []
"""Functions that return the primaries of the servers that the session fixtures below have started."""

_SERVERS: dict[Kind, str] = {
    "server": "redis_server",
    "sentinel": "sentinel_servers",
    "cluster": "cluster_servers",
}


class ServiceServer(TestServer):
    """Serve the application in the test process, with the service's own runner."""

    cancels_handlers = False
    """Whether a disconnect cancels the handler. A process of the service does so only at the end of a drain."""

    def __init__(
        self,
        settings: Settings,
        redis: Redis,
        wrap_client: Callable[[RedisClient], RedisClient] = lambda redis_client: redis_client,
        tracing: ApplicationMiddleware | None = None,
    ) -> None:
        metrics = Metrics()
        access_log = AccessLog(metrics, EventLog(SharedSecret()))
        clients = redis_clients_for(redis, settings.session_store_timeout_seconds, metrics)
        clients = clients._replace(
            main=wrap_client(clients.main), no_wait=wrap_client(clients.no_wait), bulk=wrap_client(clients.bulk)
        )
        super().__init__(create_app(settings, clients, access_log, tracing=tracing))

    async def _make_runner(self, **options: Any) -> Runner:
        return Runner(self.app, **{**options, "handler_cancellation": self.cancels_handlers})


def redis_clients_for(redis: Redis, timeout_seconds: float, metrics: Metrics) -> RedisClients:
    """Create the clients of one process, for the servers of a redis-py client."""
    monitor = StoreMonitor(metrics)
    main, bulk, background = (_new_redis_client(redis, timeout_seconds, monitor) for _ in range(3))
    subscriber = new_subscriber(lambda: service_connection_factory(redis)(), timeout_seconds)

    async def aclose() -> None:
        for part in (subscriber, main, bulk, background):
            await part.aclose()

    return RedisClients(main, main, bulk, background, subscriber, monitor, aclose)


def redis_client_for(redis: Redis) -> RedisClient:
    """Create a client for the servers of a redis-py client. The fixture `real_redis` closes it."""
    redis_client = _new_redis_client(redis, 10, StoreMonitor(Metrics()))
    _OPEN_CLIENTS[id(redis)].append(redis_client)
    return redis_client


def _new_redis_client(redis: Redis, timeout_seconds: float, monitor: StoreMonitor) -> RedisClient:
    if isinstance(redis, FakeAsyncRedis):
        return UnpipelinedClient(redis, timeout_seconds, monitor)
    if isinstance(redis, RedisCluster):
        hosts = ",".join(redis.nodes_manager.startup_nodes)
        return client_factory(f"redis+cluster://{hosts}", timeout_seconds, monitor, SCRIPTS).new_client()
    return Pipeline(Connector(service_connection_factory(redis), SCRIPTS), timeout_seconds, monitor, SCRIPTS)


def service_connection_factory(redis: Redis) -> ConnectionFactory:
    """Create connections to the server of a redis-py client, without its administrator account."""
    new_admin_connection = connection_factory(redis)

    async def new_connection() -> AbstractConnection:
        connection = await new_admin_connection()
        connection.username = connection.password = None
        return connection

    return new_connection


def new_policies(redis_client: RedisClient, settings: Settings) -> Policies:
    return Policies(redis_client, Keys(""), new_session_events(Metrics()), settings)


def new_session_events(metrics: Metrics) -> SessionEvents:
    return SessionEvents(metrics, EventLog(SharedSecret()))


def new_session_store(redis_client: RedisClient, settings: Settings, metrics: Metrics | None = None) -> SessionStore:
    return build_session_store(settings, redis_client, new_session_events(metrics or Metrics()), SECRET)


async def create_session(
    store: SessionStore,
    agent_id: str = AGENT,
    user_id: str = USER,
    config: Mapping[str, float | bool] | None = None,
    metadata: bytes = b"{}",
    evicts_only_own: bool = False,
) -> Session:
    request = NewSession(agent_id, user_id, config or {}, metadata, evicts_only_own)
    return (await store.create(request)).session


StartReplica = Callable[..., Replica]


def pytest_configure() -> None:
    """Give services in the test process a store timeout that no call exceeds on a busy machine."""
    os.environ.update(STORE_TIMEOUT)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail each test whose log contains a secret. `Replica` searches the logs of processes."""
    report = yield
    log = "\n".join(text for title, text in report.sections if title.startswith("Captured log"))
    if report.when == "teardown" and report.passed and (found := secrets_in(log)):
        report.outcome = "failed"
        report.longrepr = f"the log of {item.nodeid} contains secrets: {found}"
    return report


@pytest.fixture(scope="module", autouse=True)
def _empty_servers() -> None:
    """Empty the running servers before each file, because pytest-xdist runs the files in any order."""
    for primaries in _SHARED_SERVERS:
        for server in primaries():
            server.command("FLUSHALL")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        server.start()
        _SHARED_SERVERS.append(lambda: [server])
        yield server
        server.stop()


@pytest.fixture(scope="session")
def sentinel_servers() -> Iterator[SentinelServers]:
    with tempfile.TemporaryDirectory() as folder:
        servers = SentinelServers(Path(folder))
        servers.start()
        _SHARED_SERVERS.append(lambda: [servers.primary])
        yield servers
        servers.stop()


@pytest.fixture(scope="session")
def cluster_servers() -> Iterator[ClusterServers]:
    with tempfile.TemporaryDirectory() as folder:
        servers = ClusterServers(Path(folder), replicas=False)
        servers.start()
        _SHARED_SERVERS.append(lambda: servers.primaries)
        yield servers
        servers.stop()


@pytest.fixture
def kind() -> Kind:
    """The kind of real servers. Tests of the Redis client override it to run on Sentinel and Cluster too."""
    return "server"


@pytest.fixture
def redis_url(request: pytest.FixtureRequest, kind: Kind) -> str:
    """The URL of the real servers, without an administrator account."""
    servers: RedisServer | SentinelServers | ClusterServers = request.getfixturevalue(_SERVERS[kind])
    return servers.url


@pytest.fixture
async def real_redis(request: pytest.FixtureRequest, kind: Kind) -> AsyncIterator[Redis]:
    """Empty the real servers and return an administrator's client. The test fails if it leaves keys without a TTL."""
    client = _admin_client(request, kind)
    await client.flushall()
    yield client
    for redis_client in _OPEN_CLIENTS.pop(id(client), []):
        await redis_client.aclose()
    keys_without_ttl = [key async for key in client.scan_iter() if await client.ttl(key) == -1]
    await client.aclose()
    assert [key for key in keys_without_ttl if not _is_persistent(key)] == []


def _admin_client(request: pytest.FixtureRequest, kind: Kind) -> Redis:
    """For a cluster, return a RedisCluster, which has the same commands."""
    servers = request.getfixturevalue(_SERVERS[kind])
    match kind:
        case "server":
            return redis_py_client(servers.admin_url, 10)
        case "sentinel":
            return redis_py_client(servers.primary.admin_url, 10)
        case "cluster":
            nodes = [ClusterNode("127.0.0.1", node.port) for node in servers.servers]
            client = RedisCluster(
                startup_nodes=nodes, protocol=2, max_connections=1000, username=ADMIN.user, password=ADMIN.password
            )
            return cast(Redis, client)


@pytest.fixture
async def fake_redis() -> AsyncIterator[Redis]:
    async with FakeAsyncRedis(server=FakeServer()) as client:
        yield client


@pytest.fixture
def redis(real_redis: Redis) -> Redis:
    """The Redis of the service that `client` calls. Tests of handlers override it with `fake_redis`."""
    return real_redis


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
async def client(redis: Redis, settings: Settings, aiohttp_client: AiohttpClient) -> HttpClient:
    return await aiohttp_client(ServiceServer(settings, redis))


@pytest.fixture
def store_timeout_seconds() -> float:
    """Return a timeout that no call exceeds on a busy machine. Tests of outages override it."""
    return 10


@pytest.fixture
async def redis_client_factory(
    redis_url: str, real_redis: Redis, store_timeout_seconds: float
) -> AsyncIterator[ClientFactory]:
    factory = client_factory(redis_url, store_timeout_seconds, StoreMonitor(Metrics()), SCRIPTS)
    yield factory
    await factory.aclose()


@pytest.fixture
async def redis_client(redis_client_factory: ClientFactory) -> AsyncIterator[RedisClient]:
    redis_client = redis_client_factory.new_client()
    yield redis_client
    await redis_client.aclose()


@pytest.fixture
async def second_redis_client(redis_client_factory: ClientFactory) -> AsyncIterator[RedisClient]:
    redis_client = redis_client_factory.new_client()
    yield redis_client
    await redis_client.aclose()


@pytest.fixture
def store(redis_client: RedisClient, settings: Settings) -> SessionStore:
    return new_session_store(redis_client, settings)


@pytest.fixture
async def session(store: SessionStore) -> Session:
    return await create_session(store, metadata=b'{"channel":"web"}')


@pytest.fixture
def start_replica() -> Iterator[StartReplica]:
    """Return a function that starts a replica. The replicas are stopped after the test."""
    replicas: list[Replica] = []

    def start(arguments: Sequence[str] = (), **settings: str) -> Replica:
        replica = Replica(arguments, **settings)
        replicas.append(replica)
        replica.start()
        return replica

    yield start
    for replica in replicas:
        replica.stop()


@pytest.fixture
def replica_url(redis_server: RedisServer, start_replica: StartReplica) -> str:
    redis_server.command("FLUSHALL")
    return start_replica(REDIS_URL=redis_server.url).url


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A temporary folder whose path is short enough for a Unix socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _is_persistent(key: bytes) -> bool:
    name = key.decode().removeprefix(PREFIX)
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in PERSISTENT_KEYS)
