"""Open connections for pipelines. redis-py supplies the address and the credentials."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from redis.asyncio.connection import AbstractConnection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import Connection as TcpConnection
from redis.exceptions import ResponseError

from service.redis_client.connection import Connection, packed
from service.redis_client.scripts import Command, ScriptCatalog
from service.settings.redis_url import Host

ConnectionFactory = Callable[[], Awaitable[AbstractConnection]]
"""Finds the server, and returns a redis-py connection to it that is not open."""

_HANDSHAKE_ERRORS = (
    "WRONGPASS invalid username-password pair or user is disabled",
    "ERR AUTH <password> called without any password configured",
    "ERR max number of clients reached",
    "NOAUTH HELLO must be called with the client already authenticated",
    "NOPROTO unsupported protocol version",
    "DENIED Redis is running in protected mode",
    "LOADING Redis is loading the dataset in memory",
)
"""Error replies to HELLO that are safe to log. Any other may repeat the command, with the password."""

_TLS_FILE_READERS = ThreadPoolExecutor(2, "tls")
"""Certificates are read again for each connection. A network file system may not respond."""

_ERROR_CODES = ("ERR", "WRONGPASS", "NOAUTH", "NOPERM", "NOPROTO", "DENIED", "LOADING")


class HandshakeError(ResponseError):
    """The server rejected HELLO. The message contains no credentials."""


class Connector:
    """Opens connections with the address, TLS, user, database and client name of a redis-py connection.

    Loads all scripts on each new connection. With `primary_only`, rejects replicas and former primaries.
    """

    def __init__(
        self, connection_factory: ConnectionFactory, scripts: ScriptCatalog, *, primary_only: bool = False
    ) -> None:
        self._new_redis_py_connection = connection_factory
        self._load_commands = scripts.load_commands()
        self._primary_only = primary_only
        self._primary: Host | None = None
        self._connections: WeakKeyDictionary[Connection, Host] = WeakKeyDictionary()

    async def __call__(self, on_lost: Callable[[Connection], None], on_writable: Callable[[], None]) -> Connection:
        """Open a connection and log in with RESP3. Raises OSError, ResponseError and other errors of redis-py."""
        model: Any = await self._new_redis_py_connection()
        connection = await _open(model, partial(Connection, on_lost, on_writable))
        try:
            role = await _shake_hands(connection, model, self._load_commands)
            connection.is_to_a_primary = role == b"master"
            if self._primary_only:
                self._require_primary(role, connection, (model.host, model.port))
        except BaseException:
            connection.abort(ConnectionAbortedError("the handshake failed"))
            raise
        return connection

    async def query(self, command: Command) -> Any:
        """Send one command on a connection of its own. Returns the reply, or the error reply."""
        connection = await self(lambda _: None, lambda: None)
        exchange = _Handshake([command], [])
        connection.send(exchange)
        try:
            (reply,) = await exchange.done
        finally:
            connection.abort(ConnectionAbortedError("the query is complete"))
            await connection.closed
        return reply

    def set_primary(self, host: Host) -> None:
        """Close the connections to all other servers. Requests in flight there fail."""
        self._primary = host
        for connection, connected_host in list(self._connections.items()):
            if connected_host != host:
                connection.abort(ConnectionAbortedError("another server is the primary now"))

    def _require_primary(self, role: bytes, connection: Connection, host: Host) -> None:
        if role != b"master":
            raise ConnectionRefusedError(f"the server is a {role.decode()}, not a primary: a failover is in progress")
        if self._primary not in (None, host):
            raise ConnectionRefusedError("another server is the primary now")
        self._connections[connection] = host


async def _open(model: AbstractConnection, protocol: Callable[[], Connection]) -> Connection:
    loop = asyncio.get_running_loop()
    match model:
        case UnixDomainSocketConnection():
            _, connection = await loop.create_unix_connection(protocol, model.path)
        case SSLConnection():
            tls = await loop.run_in_executor(_TLS_FILE_READERS, model.ssl_context.get)
            transport, connection = await loop.create_connection(protocol, model.host, model.port, ssl=tls)
            _enable_keepalive(transport, model.socket_keepalive_options)
        case TcpConnection():
            transport, connection = await loop.create_connection(protocol, model.host, model.port)
            _enable_keepalive(transport, model.socket_keepalive_options)
        case _:
            raise TypeError(f"connections of type {type(model).__name__} are not supported")
    return connection


def _enable_keepalive(transport: asyncio.BaseTransport, options: Any) -> None:
    """Use the same TCP keepalive as redis-py, so that the kernel detects a dead peer."""
    connected = transport.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in options.items():
        connected.setsockopt(socket.IPPROTO_TCP, option, value)


async def _shake_hands(connection: Connection, model: AbstractConnection, load_commands: list[Command]) -> bytes:
    """Log in, select the database and load the scripts. Returns the role of the server."""
    select: list[Command] = [("SELECT", model.db)] if model.db else []
    handshake = _Handshake([_hello(model), *select], load_commands)
    connection.send(handshake)
    replies = await handshake.done
    if isinstance(replies[0], ResponseError):
        raise HandshakeError(_without_secrets(str(replies[0])))
    for reply in replies[1:]:
        if isinstance(reply, ResponseError):
            raise reply
    role: bytes = replies[0][b"role"]
    return role


def _without_secrets(message: str) -> str:
    """An error message that is safe to log: a server that does not support a command repeats its arguments."""
    if message.lower().startswith("err unknown command"):
        return "the server does not support HELLO: it is older than Redis 6, a proxy, or has the command disabled"
    for safe in _HANDSHAKE_ERRORS:
        if message.startswith(safe):
            return safe
    code = message.partition(" ")[0]
    shown = code if code in _ERROR_CODES else "an error"
    return f"the server replied to HELLO with {shown}; the message is not logged because it may contain the password"


def _hello(model: AbstractConnection) -> Command:
    hello: Command = ("HELLO", 3)
    if model.username or model.password:
        hello += ("AUTH", model.username or "default", model.password or "")
    if model.client_name:
        hello += ("SETNAME", model.client_name)
    return hello


class _Handshake:
    """The first exchange on a connection (see connection.Exchange). `done` receives the replies to `commands`.

    Replies to `optional` commands are ignored: the account may not be permitted to run them, or Redis may be loading.
    """

    deadline = float("inf")

    def __init__(self, commands: list[Command], optional: list[Command]) -> None:
        self._commands = commands
        self._optional = optional
        self.replies: list[Any] = []
        self.done: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

    def pack(self) -> tuple[bytes, int]:
        commands = [*self._commands, *self._optional]
        return packed(commands), len(commands)

    def settle(self) -> None:
        self.done.set_result(self.replies[: len(self._commands)])

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)
