"""Connections of the pipeline's own, to the very server that a redis-py client is meant for."""

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import Connection as TcpConnection
from redis.exceptions import ResponseError

from service.connection import Connection, packed
from service.scripts import Command


class Dialer:
    """Opens connections as the client's pool would: the same address, TLS, user, database and name."""

    def __init__(self, client: Redis) -> None:
        self._pool = client.connection_pool

    async def __call__(self, on_lost: Callable[[Connection], None], on_writable: Callable[[], None]) -> Connection:
        """A connection that is logged in and speaks RESP3. Raises OSError and ResponseError."""
        like: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        connection = await _opened(like, partial(Connection, on_lost, on_writable))
        try:
            await _introduced(connection, like)
        except BaseException:
            connection.abort(ConnectionAbortedError("the greeting failed"))
            raise
        return connection


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


async def _introduced(connection: Connection, like: AbstractConnection) -> None:
    hello: Command = ("HELLO", 3)
    if like.username or like.password:
        hello += ("AUTH", like.username or "default", like.password or "")
    if like.client_name:
        hello += ("SETNAME", like.client_name)
    greeting = _Greeting([hello, ("SELECT", like.db)] if like.db else [hello])
    connection.send(greeting)
    for reply in await greeting.answered:
        if isinstance(reply, ResponseError):
            raise reply


class _Greeting:
    """The first exchange on a connection (see connection.Exchange)."""

    deadline = float("inf")

    def __init__(self, commands: list[Command]) -> None:
        self._commands = commands
        self.replies: list[Any] = []
        self.answered: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

    def pack(self) -> tuple[bytes, int]:
        return packed(self._commands), len(self._commands)

    def settle(self) -> None:
        self.answered.set_result(self.replies)

    def fail(self, error: Exception) -> None:
        if not self.answered.done():
            self.answered.set_exception(error)
