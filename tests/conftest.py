"""What tests stand on: a real Redis server, a fake one, stores and HTTP clients over either, replicas as processes."""

import fnmatch
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
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
from tests.redis_server import ADMIN, RedisServer
from tests.replica import Replica
from tests.sentinel_servers import SentinelServers
from tests.unpipelined_client import UnpipelinedClient

AGENT = "3c90c3cc-0d44-4b50-8888-8dd25736052a"
USER = "7d444840-9dc0-11d1-b245-5ffdce74fad2"

PREFIX = "app:"
"""The key prefix in tests that set one."""

KEYS_WITHOUT_END = (
    "sessions:{??}:expiry",
    "sessions:{??}:warning",
    "sessions:{??}:created",
    "sessions:agent:{*}:policy",
    "sessions:layout",
    "sessions:secret",
)

SECRET = SharedSecret()
"""What replicas share, where a test makes stores of its own."""
SECRET.load("5e" * 32)

HttpClient = TestClient[Any, Any]

_LANES: defaultdict[int, list[RedisClient]] = defaultdict(list)
"""To the servers of clients, by those."""

_SHARED_SERVERS: list[Callable[[], Sequence[RedisServer]]] = []
"""Functions that return the primaries of the servers that the session fixtures below have started."""

_SERVERS: dict[Kind, str] = {
    "server": "redis_server",
    "sentinel": "sentinel_servers",
    "cluster": "cluster_servers",
}


class ServiceServer(TestServer):
    """The service under aiohttp's test server, run by its own runner."""

    def __init__(
        self,
        settings: Settings,
        redis: Redis,
        on: Callable[[RedisClient], RedisClient] = lambda redis_client: redis_client,
        tracing: ApplicationMiddleware | None = None,
    ) -> None:
        metrics = Metrics()
        clients = clients_of(redis, settings.session_store_timeout_seconds, metrics)
        watch = AccessLog(metrics, EventLog(SharedSecret()))
        clients = clients._replace(main=on(clients.main), no_wait=on(clients.no_wait), bulk=on(clients.bulk))
        super().__init__(create_app(settings, clients, watch, tracing=tracing))

    async def _make_runner(self, **options: Any) -> Runner:
        return Runner(self.app, **options)


def clients_of(redis: Redis, timeout_seconds: float, metrics: Metrics) -> RedisClients:
    """The ways to a Redis that the service would take; a fake has no connections to pipeline on."""
    watch = StoreMonitor(metrics)
    redis_clients = [_new_lane(redis, timeout_seconds, watch) for _ in range(3)]

    async def aclose() -> None:
        for redis_client in redis_clients:
            await redis_client.aclose()

    redis_client, wide, beside = redis_clients
    return RedisClients(redis_client, redis_client, wide, beside, watch, aclose)


def lane_to(redis: Redis) -> RedisClient:
    """A way to the servers of a client, of whatever kind they are; that of a real one closes with the client."""
    redis_client = _new_lane(redis, 2, StoreMonitor(Metrics()))
    _LANES[id(redis)].append(redis_client)
    return redis_client


def _new_lane(redis: Redis, timeout_seconds: float, watch: StoreMonitor) -> RedisClient:
    if isinstance(redis, FakeAsyncRedis):
        return UnpipelinedClient(redis, timeout_seconds, watch)
    if isinstance(redis, RedisCluster):
        hosts = ",".join(redis.nodes_manager.startup_nodes)
        return client_factory(f"redis+cluster://{hosts}", timeout_seconds, watch, SCRIPTS).new_client()
    return Pipeline(Connector(like_of_the_service(redis), SCRIPTS), timeout_seconds, watch, SCRIPTS)


def like_of_the_service(redis: Redis) -> ConnectionFactory:
    """Connections like the client's; where that is the admin's, these are the service's."""
    like = connection_factory(redis)

    async def confined() -> AbstractConnection:
        connection = await like()
        connection.username = connection.password = None
        return connection

    return confined


def policies_on(redis_client: RedisClient, settings: Settings) -> Policies:
    return Policies(redis_client, Keys(""), events_into(Metrics()), settings)


def events_into(metrics: Metrics) -> SessionEvents:
    return SessionEvents(metrics, EventLog(SharedSecret()))


def store_on(redis_client: RedisClient, settings: Settings, metrics: Metrics | None = None) -> SessionStore:
    return build_session_store(settings, redis_client, events_into(metrics or Metrics()), SECRET)


async def create_session(
    store: SessionStore,
    agent_id: str = AGENT,
    user_id: str = USER,
    config: Mapping[str, float | bool] | None = None,
    metadata: bytes = b"{}",
) -> Session:
    return (await store.create(NewSession(agent_id, user_id, config or {}, metadata))).session


StartReplica = Callable[..., Replica]


def pytest_itemcollected(item: pytest.Item) -> None:
    """Put the operation into the id of a schemathesis test: pytest 9.2 leaves it out, and xdist runs equal ids once."""
    if not item.nodeid.endswith(item.name):
        assert item.parent is not None
        item._id = item.parent.id.child(item.name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fail if two tests share an id, because xdist runs only one of them."""
    repeated = [node_id for node_id, count in Counter(item.nodeid for item in items).items() if count > 1]
    if repeated:
        raise pytest.UsageError(f"tests share an id: {', '.join(repeated)}")


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
    """Of the real servers."""
    servers: RedisServer | SentinelServers | ClusterServers = request.getfixturevalue(_SERVERS[kind])
    return servers.url


@pytest.fixture
async def real_redis(request: pytest.FixtureRequest, kind: Kind) -> AsyncIterator[Redis]:
    """A client of the real servers, emptied; after the test no key may be without an end that should have one."""
    client = _client_of(request, kind)
    await client.flushall()
    yield client
    for redis_client in _LANES.pop(id(client), []):
        await redis_client.aclose()
    endless = [key async for key in client.scan_iter() if await client.ttl(key) == -1]
    await client.aclose()
    assert [key for key in endless if not _may_stay(key)] == []


def _client_of(request: pytest.FixtureRequest, kind: Kind) -> Redis:
    """To a cluster it is redis-py's own kind of client, which speaks alike."""
    servers = request.getfixturevalue(_SERVERS[kind])
    match kind:
        case "server":
            return redis_py_client(servers.admin_url, 2)
        case "sentinel":
            return redis_py_client(servers.primary.admin_url, 2)
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
    """The Redis behind `client`. A module of handler unit tests overrides it with `fake_redis`."""
    return real_redis


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
async def client(redis: Redis, settings: Settings, aiohttp_client: AiohttpClient) -> HttpClient:
    return await aiohttp_client(ServiceServer(settings, redis))


@pytest.fixture
async def source(redis_url: str, real_redis: Redis) -> AsyncIterator[ClientFactory]:
    source = client_factory(redis_url, 2, StoreMonitor(Metrics()), SCRIPTS)
    yield source
    await source.aclose()


@pytest.fixture
async def redis_client(source: ClientFactory) -> AsyncIterator[RedisClient]:
    """The way to each kind of servers in turn."""
    redis_client = source.new_client()
    yield redis_client
    await redis_client.aclose()


@pytest.fixture
async def beside(source: ClientFactory) -> AsyncIterator[RedisClient]:
    """Another way to the same servers."""
    redis_client = source.new_client()
    yield redis_client
    await redis_client.aclose()


@pytest.fixture
def store(redis_client: RedisClient, settings: Settings) -> SessionStore:
    return store_on(redis_client, settings)


@pytest.fixture
async def session(store: SessionStore) -> Session:
    return await create_session(store, metadata=b'{"channel":"web"}')


@pytest.fixture
def start_replica() -> Iterator[StartReplica]:
    """Starts replicas, each with settings of its own, and stops them after the test."""
    started: list[Replica] = []

    def start(words: Sequence[str] = (), **settings: str) -> Replica:
        replica = Replica(words, **settings)
        started.append(replica)
        replica.start()
        return replica

    yield start
    for replica in started:
        replica.stop()


@pytest.fixture
def replica_url(redis_server: RedisServer, start_replica: StartReplica) -> str:
    redis_server.command("FLUSHALL")
    return start_replica(REDIS_URL=redis_server.url).url


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder with a path short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _may_stay(key: bytes) -> bool:
    name = key.decode().removeprefix(PREFIX)
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in KEYS_WITHOUT_END)
