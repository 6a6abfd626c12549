"""A proxy that accepts TLS, and also plain connections of other servers, in front of a Redis server without TLS."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_TLS_HANDSHAKE = b"\x16"


class TlsProxy:
    """Listens on `port`. `encrypted` is the number of TLS connections so far."""

    def __init__(self, listener: socket.socket, server_port: int, tls: ssl.SSLContext) -> None:
        self._listener = listener
        self._server_port = server_port
        self._tls = tls
        self.port: int = listener.getsockname()[1]
        self.encrypted = 0

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            while True:
                client, _ = await loop.sock_accept(self._listener)
                tasks.create_task(self._accept(client))

    async def _accept(self, client: socket.socket) -> None:
        with suppress(ConnectionError, ssl.SSLError):  # the client may reject the certificate
            await self._forward(client)

    async def _forward(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        is_encrypted = await _first_byte(client) == _TLS_HANDSHAKE
        self.encrypted += is_encrypted
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, client, ssl=self._tls if is_encrypted else None
        )
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        await asyncio.gather(_copy(reader, server_writer), _copy(server_reader, writer))


@asynccontextmanager
async def tls_proxy_to(server_port: int, tls: ssl.SSLContext) -> AsyncIterator[TlsProxy]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        proxy = TlsProxy(listener, server_port, tls)
        serving = asyncio.create_task(proxy.serve())
        yield proxy
        serving.cancel()
        await asyncio.wait([serving])


async def _first_byte(client: socket.socket) -> bytes:
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(client, readable.set)
    await readable.wait()
    loop.remove_reader(client)
    return client.recv(1, socket.MSG_PEEK)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    except ConnectionError:
        pass  # closing the other side is enough
    finally:
        target.close()
