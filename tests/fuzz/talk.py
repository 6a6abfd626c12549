"""Raw bytes to a port, in pieces, and what came back until the other side hung up."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

AT_ONCE = 50


class Input(NamedTuple):
    """What one client sends, in pieces; one that `leaves` waits for no answer and resets the connection."""

    pieces: list[bytes]
    leaves: bool = False
    wait_seconds: float = 60
    """By default by far longer than the service waits for the rest of a request."""

    @property
    def sent(self) -> bytes:
        return b"".join(self.pieces)


class Heard(NamedTuple):
    """What came back, and whether the other side hung up in time."""

    received: bytes
    was_ended: bool


async def talk_at_once(url: str, clients: Sequence[Input]) -> list[Heard]:
    """What each client hears, many of them at a time."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(client: Input) -> Heard:
        async with places:
            return await _talk(int(url.rpartition(":")[2]), client)

    return await asyncio.gather(*(one(client) for client in clients))


async def _talk(port: int, client: Input) -> Heard:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = bytearray()
    hearing = asyncio.create_task(_hear(reader, received))
    with suppress(ConnectionError):
        for piece in client.pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
    if not client.leaves:
        await asyncio.wait([hearing], timeout=client.wait_seconds)
    was_ended = hearing.done()
    hearing.cancel()
    writer.transport.abort()
    return Heard(bytes(received), was_ended)


async def _hear(reader: asyncio.StreamReader, received: bytearray) -> None:
    with suppress(ConnectionError):
        while part := await reader.read(65536):
            received += part
