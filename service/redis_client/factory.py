"""A Redis URL becomes ways to its servers. What redis-py makes for us never retries by itself or waits without end."""

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
from service.redis_client.cluster_routing import Topology
from service.redis_client.connector import ConnectionFactory, Connector
from service.redis_client.errors import ServerDemoted
from service.redis_client.monitor import StoreMonitor
from service.redis_client.pipeline import Pipeline
from service.redis_client.scripts import Command, ScriptCatalog
from service.redis_client.sentinel import Sentinels
from service.settings import Settings
from service.settings.redis_url import Host, RedisUrl, parse_redis_url

CLIENT_NAME = "session-service"
MAX_CONNECTIONS = 64

_NOT_UNDERSTOOD = (
    "REDIS_URL: cannot be understood; a '/', '#', '?' or '@' in a password is written as %2F, %23, %3F or %40, "
    "and options are those of redis-py."
)


Way = Callable[[Replication | None], RedisClient]


class ClientFactory(NamedTuple):
    """Makes lanes, each with connections of its own, to the servers of one URL; nothing connects before it is used."""

    way: Way
    aclose: Callable[[], Awaitable[None]]
    """Closes what the lanes share: they go first."""

    def new_client(self, replication: Replication | None = None) -> RedisClient:
        """With `replication`, one whose changes are answered when replicas have them; no read waits behind those."""
        if replication is None:
            return self.way(None)
        return ReplicatedClient(reading=self.way(None), changing=self.way(replication))


def client_factory(url: str, timeout_seconds: float, watch: StoreMonitor, scripts: ScriptCatalog) -> ClientFactory:
    """Raises StartupError in words of our own: others may hold the password."""
    apart = parse_redis_url(url)
    try:
        match apart.kind:
            case "server":
                return _at_a_server(apart, timeout_seconds, watch, scripts)
            case "sentinel":
                return _behind_sentinels(apart, timeout_seconds, watch, scripts)
            case "cluster":
                return _in_a_cluster(apart, timeout_seconds, watch, scripts)
    except (ValueError, TypeError, RedisError):
        raise StartupError(_NOT_UNDERSTOOD) from None


def redis_py_client(url: str, timeout_seconds: float) -> Redis:
    """A client for `redis://`, `rediss://` or `unix://`. It connects when it is first used."""
    bounds = _bounds(timeout_seconds)
    pool = BlockingConnectionPool.from_url(
        url, client_name=CLIENT_NAME, max_connections=MAX_CONNECTIONS, timeout=timeout_seconds, **bounds
    )
    pool.connection_kwargs.update(bounds)  # the URL's options may not lift these
    pool.timeout = timeout_seconds
    return Redis.from_pool(pool)


def connection_factory(client: Redis) -> ConnectionFactory:
    """Connections like the client's."""

    async def like() -> AbstractConnection:
        return _made_by(client.connection_pool)

    return like


def _at_a_server(url: RedisUrl, timeout_seconds: float, watch: StoreMonitor, scripts: ScriptCatalog) -> ClientFactory:
    client = redis_py_client(url.server, timeout_seconds)
    _made_by(client.connection_pool)
    dial = Connector(connection_factory(client), scripts)
    return ClientFactory(_siblings(dial, timeout_seconds, watch, scripts), client.aclose)


def _siblings(dial: Connector, timeout_seconds: float, watch: StoreMonitor, scripts: ScriptCatalog) -> Way:
    """Makes pipelines to one server, all of which leave it when one of them sees that it is the primary no more."""
    made: list[Pipeline] = []

    def leave() -> None:
        for pipeline in made:
            pipeline.leave_server(ServerDemoted("the server is a primary no more"))

    def way(replication: Replication | None) -> RedisClient:
        watching = watch if replication is None else watch.for_writes()
        made.append(Pipeline(dial, timeout_seconds, watching, scripts, replication, leave))
        return made[-1]

    return way


def _behind_sentinels(
    url: RedisUrl, timeout_seconds: float, watch: StoreMonitor, scripts: ScriptCatalog
) -> ClientFactory:
    """The Sentinels are given a part of the time, so that one that is silent does not take all of it."""
    options = _options(url, timeout_seconds)
    username, password = url.sentinel_login
    of_sentinels = {name: value for name, value in options.items() if name.startswith(("ssl", "socket_"))}
    of_sentinels |= _bounds(timeout_seconds / (len(url.hosts) + 1)) | {"username": username, "password": password}
    sentinel = Sentinel(url.hosts, sentinel_kwargs=of_sentinels)  # type: ignore[no-untyped-call]
    pool = sentinel.master_for(url.master, **options).connection_pool
    _made_by(pool)

    async def like() -> AbstractConnection:
        connection: Any = _made_by(pool)
        connection.host, connection.port = await sentinels.primary()
        return connection  # type: ignore[no-any-return]

    dial = Connector(like, scripts, primary_only=True)
    sentinels = Sentinels(sentinel.sentinels, url.master, dial.is_primary)
    return ClientFactory(_siblings(dial, timeout_seconds, watch, scripts), sentinels.aclose)


def _in_a_cluster(url: RedisUrl, timeout_seconds: float, watch: StoreMonitor, scripts: ScriptCatalog) -> ClientFactory:
    options = _options(url, timeout_seconds)
    encrypted = options.pop("ssl", False)

    def dialer_to(host: Host) -> Connector:
        async def like() -> AbstractConnection:
            return (SSLConnection if encrypted else Connection)(host=host[0], port=host[1], **options)

        return Connector(like, scripts)

    async def ask(host: Host, command: Command) -> Reply:
        return await dialer_to(host).query(command)

    (SSLConnection if encrypted else Connection)(**options)  # what it cannot be made of is said at the start
    topology = Topology(ask, url.hosts, timeout_seconds)
    return ClientFactory(partial(ClusterClient, topology, dialer_to, timeout_seconds, watch, scripts), topology.aclose)


def _options(url: RedisUrl, timeout_seconds: float) -> dict[str, Any]:
    """Of a connection, but for where it goes."""
    options: dict[str, Any] = {**parse_url(url.server)}
    options.pop("host")
    encrypted = options.pop("connection_class", None) is SSLConnection
    return options | ({"ssl": True} if encrypted else {}) | {"client_name": CLIENT_NAME} | _bounds(timeout_seconds)


def _bounds(timeout_seconds: float) -> dict[str, Any]:
    return {
        "protocol": 2,
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "retry": Retry(NoBackoff(), 0),
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def _made_by(pool: ConnectionPool) -> AbstractConnection:
    connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
    return connection


class RedisClients(NamedTuple):
    """The requests' own way, one for work on many sessions, and one for what goes on beside the requests.

    `prompt` is the requests' own too, but no change on it waits for replicas. The watch is over all of them, and
    `aclose` lets go of them.
    """

    main: RedisClient
    no_wait: RedisClient
    bulk: RedisClient
    background: RedisClient
    monitor: StoreMonitor
    aclose: Callable[[], Coroutine[Any, Any, None]]


def connect_clients(url: str, settings: Settings, metrics: Metrics, scripts: ScriptCatalog) -> RedisClients:
    """Ways to the servers of a URL. Raises StartupError."""
    timeout_seconds = settings.session_store_timeout_seconds
    watch = StoreMonitor(metrics)
    source = client_factory(url, timeout_seconds, watch, scripts)
    replication = replication_of(settings)
    no_wait, bulk, background = source.new_client(), source.new_client(replication), source.new_client()
    main = no_wait if replication is None else ReplicatedClient(reading=no_wait, changing=source.way(replication))

    async def aclose() -> None:
        for part in (main, bulk, background, source):
            await part.aclose()

    return RedisClients(main, no_wait, bulk, background, watch, aclose)


def replication_of(settings: Settings) -> Replication | None:
    """Half of the time that a request may take is the replicas'; the rest is for coming and going."""
    replicas, milliseconds = settings.session_wait_replicas, round(settings.session_store_timeout_seconds * 500)
    return Replication(replicas, milliseconds) if replicas else None


class ReplicatedClient:
    """Reads through one lane and changes through another, which is the one that waits (see batch.Replication)."""

    def __init__(self, reading: RedisClient, changing: RedisClient) -> None:
        self._reading = reading
        self._changing = changing

    @property
    def supports_multi_slot(self) -> bool:
        return self._reading.supports_multi_slot

    async def read_hash(self, key: str, fields: Fields) -> Read:
        return await self._reading.read_hash(key, fields)

    async def read_hashes(self, keys: Sequence[str], fields: Fields) -> list[Read]:
        return await self._reading.read_hashes(keys, fields)

    async def query(self, *commands: Command) -> list[Reply]:
        return await self._reading.query(*commands)

    async def execute(self, *commands: Command) -> list[Reply]:
        return await self._changing.execute(*commands)

    async def execute_ordered(self, *commands: Command) -> list[Reply]:
        return await self._changing.execute_ordered(*commands)

    async def broadcast(self, *commands: Command) -> dict[str, list[Reply]]:
        return await self._reading.broadcast(*commands)

    async def aclose(self) -> None:
        await self._reading.aclose()
        await self._changing.aclose()
