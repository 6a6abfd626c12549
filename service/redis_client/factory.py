"""Create Redis clients from a Redis URL. redis-py's own retries and unlimited waits are disabled."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, NamedTuple

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis, Sentinel
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from service.errors import StartupError
from service.observability.metrics import Metrics
from service.redis_client.batch import Replication
from service.redis_client.client import Fields, Read, RedisClient, Reply
from service.redis_client.cluster import ClusterClient
from service.redis_client.cluster_routing import Topology, slot_of
from service.redis_client.connector import ConnectionFactory, Connector
from service.redis_client.errors import ServerDemoted
from service.redis_client.monitor import StoreMonitor
from service.redis_client.pipeline import Pipeline
from service.redis_client.scripts import Command, ScriptCatalog
from service.redis_client.sentinel import Sentinels
from service.redis_client.subscriber import Subscriber
from service.settings import Settings
from service.settings.redis_url import Host, RedisUrl, parse_redis_url

CLIENT_NAME = "session-service"
MAX_CONNECTIONS = 64

_INVALID_URL = (
    "REDIS_URL: the URL is not valid. Write '/', '#', '?' and '@' in a password as %2F, %23, %3F and %40. "
    "Its options are those of redis-py."
)

NewClient = Callable[[Replication | None], RedisClient]


class RedisClients(NamedTuple):
    """The clients of one process. Each has its own connections, so that none delays the others."""

    main: RedisClient
    """For requests. Writes wait for replicas if SESSION_WAIT_REPLICAS is set."""
    no_wait: RedisClient
    """For requests. Writes do not wait for replicas."""
    bulk: RedisClient
    """For requests that touch many sessions."""
    background: RedisClient
    """For maintenance tasks."""
    subscriber: Subscriber
    """For channels."""
    monitor: StoreMonitor
    aclose: Callable[[], Coroutine[Any, Any, None]]


class ClientFactory(NamedTuple):
    """Creates clients for one URL. Each has its own connections, opened on first use."""

    create: NewClient
    """Creates a client all of whose batches wait for replicas, or none."""
    subscriber: Subscriber
    """Shared by all clients."""
    aclose: Callable[[], Awaitable[None]]
    """Closes what the clients share. Close the clients first."""

    def new_client(self, replication: Replication | None = None) -> RedisClient:
        """With `replication`, writes wait for replicas on connections of their own, so that reads do not."""
        if replication is None:
            return self.create(None)
        return ReplicatedClient(reads=self.create(None), writes=self.create(replication))


class ReplicatedClient:
    """Reads through one client, and writes through another one whose batches wait for replicas."""

    def __init__(self, reads: RedisClient, writes: RedisClient) -> None:
        self._reads = reads
        self._writes = writes

    @property
    def supports_multi_slot(self) -> bool:
        return self._reads.supports_multi_slot

    async def read_hash(self, key: str, fields: Fields) -> Read:
        return await self._reads.read_hash(key, fields)

    async def read_hashes(self, keys: Sequence[str], fields: Fields) -> list[Read]:
        return await self._reads.read_hashes(keys, fields)

    async def query(self, *commands: Command) -> list[Reply]:
        return await self._reads.query(*commands)

    async def execute(self, *commands: Command) -> list[Reply]:
        return await self._writes.execute(*commands)

    async def execute_ordered(self, *commands: Command) -> list[Reply]:
        return await self._writes.execute_ordered(*commands)

    async def broadcast(self, *commands: Command) -> dict[str, list[Reply]]:
        return await self._reads.broadcast(*commands)

    async def aclose(self) -> None:
        await self._reads.aclose()
        await self._writes.aclose()


def connect_clients(url: str, settings: Settings, metrics: Metrics, scripts: ScriptCatalog) -> RedisClients:
    """Create the clients of one process. Raises StartupError."""
    monitor = StoreMonitor(metrics)
    factory = client_factory(url, settings.session_store_timeout_seconds, monitor, scripts)
    replication = replication_of(settings)
    no_wait, bulk, background = factory.create(None), factory.new_client(replication), factory.create(None)
    main = no_wait
    if replication is not None:
        main = ReplicatedClient(reads=no_wait, writes=factory.create(replication))

    async def aclose() -> None:
        for part in (factory.subscriber, main, bulk, background, factory):
            await part.aclose()

    return RedisClients(main, no_wait, bulk, background, factory.subscriber, monitor, aclose)


def replication_of(settings: Settings) -> Replication | None:
    """Replicas may take half of the request's time limit; the rest is for the round trip."""
    replicas, timeout_ms = settings.session_wait_replicas, round(settings.session_store_timeout_seconds * 500)
    return Replication(replicas, timeout_ms) if replicas else None


def client_factory(url: str, timeout_seconds: float, monitor: StoreMonitor, scripts: ScriptCatalog) -> ClientFactory:
    """Raises StartupError. Hides the message of the original error: it may contain the password."""
    parsed = parse_redis_url(url)
    try:
        match parsed.kind:
            case "server":
                return _server_clients(parsed, timeout_seconds, monitor, scripts)
            case "sentinel":
                return _sentinel_clients(parsed, timeout_seconds, monitor, scripts)
            case "cluster":
                return _cluster_clients(parsed, timeout_seconds, monitor, scripts)
    except (ValueError, TypeError, RedisError):
        raise StartupError(_INVALID_URL) from None


def redis_py_client(url: str, timeout_seconds: float) -> Redis:
    """Create a redis-py client for `redis://`, `rediss://` or `unix://`. It connects on first use."""
    limits = _limits(timeout_seconds)
    pool = BlockingConnectionPool.from_url(
        url, client_name=CLIENT_NAME, max_connections=MAX_CONNECTIONS, timeout=timeout_seconds, **limits
    )
    pool.connection_kwargs.update(limits)  # options of the URL must not override these
    pool.timeout = timeout_seconds
    return Redis.from_pool(pool)


def connection_factory(client: Redis) -> ConnectionFactory:
    """Return a factory of connections like those of `client`."""

    async def new_connection() -> AbstractConnection:
        return _new_connection(client.connection_pool)

    return new_connection


def _server_clients(
    url: RedisUrl, timeout_seconds: float, monitor: StoreMonitor, scripts: ScriptCatalog
) -> ClientFactory:
    client = redis_py_client(url.server, timeout_seconds)
    _new_connection(client.connection_pool)  # raises now if the options are not valid
    connector = Connector(connection_factory(client), scripts)

    async def locate(_: str) -> None: ...

    async def connect_to(_: Host | None) -> AbstractConnection:
        return _new_connection(client.connection_pool)

    subscriber = Subscriber(locate, connect_to, timeout_seconds)
    return ClientFactory(_pipelines(connector, timeout_seconds, monitor, scripts), subscriber, client.aclose)


def _pipelines(
    connector: Connector, timeout_seconds: float, monitor: StoreMonitor, scripts: ScriptCatalog
) -> NewClient:
    """Create pipelines to one server. If one detects that the server was demoted, all of them reconnect."""
    pipelines: list[Pipeline] = []

    def leave_server() -> None:
        for pipeline in pipelines:
            pipeline.leave_server(ServerDemoted("the server is no longer a primary"))

    def create(replication: Replication | None) -> RedisClient:
        pipeline_monitor = monitor if replication is None else monitor.for_writes()
        pipeline = Pipeline(connector, timeout_seconds, pipeline_monitor, scripts, replication, leave_server)
        pipelines.append(pipeline)
        return pipeline

    return create


def _sentinel_clients(
    url: RedisUrl, timeout_seconds: float, monitor: StoreMonitor, scripts: ScriptCatalog
) -> ClientFactory:
    options = _connection_options(url, timeout_seconds)
    username, password = url.sentinel_login
    sentinel_options = {name: value for name, value in options.items() if name.startswith(("ssl", "socket_"))}
    sentinel_options |= {"username": username, "password": password}
    # One part of the time per Sentinel, so that an unresponsive one leaves time for connecting to the primary.
    sentinel_options |= _limits(timeout_seconds / (len(url.hosts) + 1))
    sentinel = Sentinel(url.hosts, sentinel_kwargs=sentinel_options)  # type: ignore[no-untyped-call]
    pool = sentinel.master_for(url.master, **options).connection_pool
    _new_connection(pool)  # raises now if the options are not valid

    async def new_connection() -> AbstractConnection:
        connection: Any = _new_connection(pool)
        connection.host, connection.port = await sentinels.primary()
        return connection  # type: ignore[no-any-return]

    async def locate(_: str) -> Host:
        return await sentinels.primary()

    async def connect_to(host: Host | None) -> AbstractConnection:
        assert host is not None
        connection: Any = _new_connection(pool)
        connection.host, connection.port = host
        return connection  # type: ignore[no-any-return]

    def set_primary(host: Host) -> None:
        connector.set_primary(host)
        subscriber.leave_other_servers(host)

    connector = Connector(new_connection, scripts, primary_only=True)
    subscriber = Subscriber(locate, connect_to, timeout_seconds)
    sentinels = Sentinels(sentinel.sentinels, url.master, set_primary)
    return ClientFactory(_pipelines(connector, timeout_seconds, monitor, scripts), subscriber, sentinels.aclose)


def _cluster_clients(
    url: RedisUrl, timeout_seconds: float, monitor: StoreMonitor, scripts: ScriptCatalog
) -> ClientFactory:
    options = _connection_options(url, timeout_seconds)
    connection_class = SSLConnection if options.pop("ssl", False) else Connection

    async def connect_to(host: Host | None) -> AbstractConnection:
        assert host is not None
        return connection_class(host=host[0], port=host[1], **options)

    def connector_for(host: Host) -> Connector:
        async def new_connection() -> AbstractConnection:
            return await connect_to(host)

        return Connector(new_connection, scripts)

    async def locate(channel: str) -> Host:
        topology.refresh()
        return await topology.host_of(slot_of(channel))

    async def query(host: Host, command: Command) -> Reply:
        return await connector_for(host).query(command)

    connection_class(**options)  # raises now if the options are not valid
    topology = Topology(query, url.hosts, timeout_seconds)
    create = partial(ClusterClient, topology, connector_for, timeout_seconds, monitor, scripts)
    return ClientFactory(create, Subscriber(locate, connect_to, timeout_seconds), topology.aclose)


def _connection_options(url: RedisUrl, timeout_seconds: float) -> dict[str, Any]:
    """The options of a redis-py connection, without the address."""
    options: dict[str, Any] = {**parse_url(url.server)}
    options.pop("host")
    is_encrypted = options.pop("connection_class", None) is SSLConnection
    return options | ({"ssl": True} if is_encrypted else {}) | {"client_name": CLIENT_NAME} | _limits(timeout_seconds)


def _limits(timeout_seconds: float) -> dict[str, Any]:
    return {
        "protocol": 2,
        "driver_info": None,  # no CLIENT SETINFO, which Redis 7.0 does not have
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "retry": Retry(NoBackoff(), 0),
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def _new_connection(pool: ConnectionPool) -> AbstractConnection:
    connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
    return connection
