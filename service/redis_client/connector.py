"""Connections of the pipeline's own; redis-py says where a server is and how to be let in."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
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
"""Finds the server, and gives a connection of redis-py's to it that is not opened."""


_SAFE_TO_REPEAT = (
    "WRONGPASS invalid username-password pair or user is disabled",
    "ERR AUTH <password> called without any password configured",
    "ERR max number of clients reached",
    "NOAUTH HELLO must be called with the client already authenticated",
    "NOPROTO unsupported protocol version",
    "DENIED Redis is running in protected mode",
    "LOADING Redis is loading the dataset in memory",
)
"""How servers refuse a greeting, word for word. What else one says may repeat what it was told, the password too."""

_CODES = ("ERR", "WRONGPASS", "NOAUTH", "NOPERM", "NOPROTO", "DENIED", "LOADING")


class HandshakeError(ResponseError):
    """The server refused to be greeted; why is said without the words that it was greeted with."""


class Connector:
    """Opens connections like redis-py's: the same address, TLS, user, database and name.

    Each knows our scripts from the start. With `primary_only` a server that is a replica is none to talk to, and one
    that was replaced may be told of.
    """

    def __init__(self, like: ConnectionFactory, scripts: ScriptCatalog, *, primary_only: bool = False) -> None:
        self._like = like
        self._load_commands = scripts.load_commands()
        self._primary_only = primary_only
        self._primary: Host | None = None
        self._opened: WeakKeyDictionary[Connection, Host] = WeakKeyDictionary()

    async def __call__(self, on_lost: Callable[[Connection], None], on_writable: Callable[[], None]) -> Connection:
        """A connection that is logged in and speaks RESP3. Raises OSError, ResponseError and what redis-py raises."""
        like: Any = await self._like()
        connection = await _opened(like, partial(Connection, on_lost, on_writable))
        try:
            role = await _introduced(connection, like, self._load_commands)
            connection.is_to_a_primary = role == b"master"
            if self._primary_only:
                self._require_primary(role, connection, (like.host, like.port))
        except BaseException:
            connection.abort(ConnectionAbortedError("the greeting failed"))
            raise
        return connection

    async def query(self, command: Command) -> Any:
        """The reply to one command, an error as it came, over a connection for it alone."""
        connection = await self(lambda _: None, lambda: None)
        question = _Handshake([command], [])
        connection.send(question)
        try:
            (reply,) = await question.replies_or_none
        finally:
            connection.abort(ConnectionAbortedError("it has answered"))
            await connection.closed
        return reply

    def is_primary(self, host: Host) -> None:
        """Told which server it is now: connections to others are dropped, with what is in flight there."""
        self._primary = host
        for connection, its_host in list(self._opened.items()):
            if its_host != host:
                connection.abort(ConnectionAbortedError("another server is the primary now"))

    def _require_primary(self, role: bytes, connection: Connection, host: Host) -> None:
        if role != b"master":
            raise ConnectionRefusedError(f"the server is no primary but a {role.decode()}: a failover is under way")
        if self._primary not in (None, host):
            raise ConnectionRefusedError("another server is the primary now")
        self._opened[connection] = host


async def _opened(like: AbstractConnection, protocol: Callable[[], Connection]) -> Connection:
    loop = asyncio.get_running_loop()
    match like:
        case UnixDomainSocketConnection():
            _, connection = await loop.create_unix_connection(protocol, like.path)
        case SSLConnection():
            tls = like.ssl_context.get()
            transport, connection = await loop.create_connection(protocol, like.host, like.port, ssl=tls)
            _keep_alive(transport, like.socket_keepalive_options)
        case TcpConnection():
            transport, connection = await loop.create_connection(protocol, like.host, like.port)
            _keep_alive(transport, like.socket_keepalive_options)
        case _:
            raise TypeError(f"no pipeline over {type(like).__name__}")
    return connection


def _keep_alive(transport: asyncio.BaseTransport, options: Any) -> None:
    """Let the kernel find out when the other end is gone without a word, as redis-py does."""
    connected = transport.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in options.items():
        connected.setsockopt(socket.IPPROTO_TCP, option, value)


async def _introduced(connection: Connection, like: AbstractConnection, load_commands: list[Command]) -> bytes:
    """The role of the server, once it has let us in."""
    greeting = _Handshake([_hello(like), *([("SELECT", like.db)] if like.db else [])], load_commands)
    connection.send(greeting)
    replies = await greeting.replies_or_none
    if isinstance(replies[0], ResponseError):
        raise HandshakeError(_without_secrets(str(replies[0])))
    for reply in replies[1:]:
        if isinstance(reply, ResponseError):
            raise reply
    role: bytes = replies[0][b"role"]
    return role


def _without_secrets(refusal: str) -> str:
    """A server that does not know a command repeats what it was told with it."""
    if refusal.lower().startswith("err unknown command"):
        return "the server does not know HELLO: it is older than Redis 6, the command is disabled, or this is a proxy"
    for safe in _SAFE_TO_REPEAT:
        if refusal.startswith(safe):
            return safe
    code = refusal.partition(" ")[0]
    return f"the server refused the greeting with {code if code in _CODES else 'an error'}; its words may hold secrets"


def _hello(like: AbstractConnection) -> Command:
    hello: Command = ("HELLO", 3)
    if like.username or like.password:
        hello += ("AUTH", like.username or "default", like.password or "")
    if like.client_name:
        hello += ("SETNAME", like.client_name)
    return hello


class _Handshake:
    """The first exchange on a connection (see connection.Exchange).

    What is said `by_the_way` need not be granted: an account may not be allowed to, or the server be loading.
    """

    deadline = float("inf")

    def __init__(self, commands: list[Command], by_the_way: list[Command]) -> None:
        self._commands = commands
        self._by_the_way = by_the_way
        self.replies: list[Any] = []
        self.replies_or_none: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

    def pack(self) -> tuple[bytes, int]:
        said = [*self._commands, *self._by_the_way]
        return packed(said), len(said)

    def settle(self) -> None:
        self.replies_or_none.set_result(self.replies[: len(self._commands)])

    def fail(self, error: Exception) -> None:
        if not self.replies_or_none.done():
            self.replies_or_none.set_exception(error)
