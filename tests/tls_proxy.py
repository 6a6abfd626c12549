"""A door before a plain Redis server: it lets in those who begin with TLS and, among servers, those who do not."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_TLS_HANDSHAKE = b"\x16"


class TlsProxy:
    """Listens on a `port` of its own; `encrypted` counts the connections that came in by TLS."""

    def __init__(self, listener: socket.socket, server_port: int, tls: ssl.SSLContext) -> None:
        self._listener = listener
        self._server_port = server_port
        self._tls = tls
        self.port: int = listener.getsockname()[1]
        self.encrypted = 0

    async def keep(self) -> None:
        """Let in whoever comes, for as long as this is not cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as visits:
            while True:
                visitor, _ = await loop.sock_accept(self._listener)
                visits.create_task(self._receive(visitor))

    async def _receive(self, visitor: socket.socket) -> None:
        with suppress(ConnectionError, ssl.SSLError):  # who is not content with the certificate turns back
            await self._let_in(visitor)

    async def _let_in(self, visitor: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        is_encrypted = await _first_byte(visitor) == _TLS_HANDSHAKE
        self.encrypted += is_encrypted
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, visitor, ssl=self._tls if is_encrypted else None
        )
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        await asyncio.gather(_carried(reader, server_writer), _carried(server_reader, writer))


@asynccontextmanager
async def tls_proxy_to(server_port: int, tls: ssl.SSLContext) -> AsyncIterator[TlsProxy]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        proxy = TlsProxy(listener, server_port, tls)
        keeping = asyncio.create_task(proxy.keep())
        yield proxy
        keeping.cancel()
        await asyncio.wait([keeping])


async def _first_byte(visitor: socket.socket) -> bytes:
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(visitor, readable.set)
    await readable.wait()
    loop.remove_reader(visitor)
    return visitor.recv(1, socket.MSG_PEEK)


async def _carried(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while some := await source.read(65536):
            target.write(some)
            await target.drain()
    except ConnectionError:
        pass  # whoever hung up, the other is told by the closing
    finally:
        target.close()
