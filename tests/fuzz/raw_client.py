"""Send raw bytes to a port, and receive until the server closes the connection."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

MAX_CONNECTIONS = 100


class Input(NamedTuple):
    """The pieces that a client sends. If it `disconnects`, it resets the connection instead of receiving."""

    pieces: list[bytes]
    disconnects: bool = False
    timeout_seconds: float = 60

    @property
    def content(self) -> bytes:
        return b"".join(self.pieces)


class Output(NamedTuple):
    """The bytes that a client received, and whether the server closed the connection before the timeout."""

    received: bytes
    was_closed: bool


async def exchange_all(url: str, inputs: Sequence[Input]) -> list[Output]:
    """Send each input over a connection of its own, many at a time."""
    connections = asyncio.Semaphore(MAX_CONNECTIONS)
    port = int(url.rpartition(":")[2])

    async def exchange(client: Input) -> Output:
        async with connections:
            return await _exchange(port, client)

    return await asyncio.gather(*(exchange(client) for client in inputs))


async def _exchange(port: int, client: Input) -> Output:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = bytearray()
    receiving = asyncio.create_task(_receive(reader, received))
    with suppress(ConnectionError):
        for piece in client.pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
    if not client.disconnects:
        await asyncio.wait([receiving], timeout=client.timeout_seconds)
    was_closed = receiving.done()
    receiving.cancel()
    writer.transport.abort()
    return Output(bytes(received), was_closed)


async def _receive(reader: asyncio.StreamReader, received: bytearray) -> None:
    with suppress(ConnectionError):
        while part := await reader.read(65536):
            received += part
