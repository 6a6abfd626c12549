"""A TCP proxy between the service and Redis that delays, stalls, cuts and refuses connections."""

import asyncio
import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

_CHUNK_BYTES = 65536
_LINGER_ZERO = struct.pack("ii", 1, 0)  # close() sends a reset


class Link(NamedTuple):
    """How one direction forwards bytes."""

    delay_seconds: float = 0
    piece_bytes: int = _CHUNK_BYTES
    is_stalled: bool = False


OPEN = Link()
SLOW = Link(delay_seconds=0.2)
TRICKLE = Link(delay_seconds=0.001, piece_bytes=11)
STALLED = Link(is_stalled=True)

_Direction = Literal["requests", "replies"]


class Proxy:
    """Listens on a port, and forwards to the Redis server on the socket `target`. Runs in a thread of its own."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._links: dict[_Direction, Link] = {"requests": OPEN, "replies": OPEN}
        self._is_refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}"

    def start(self) -> None:
        self._thread.start()
        serving = asyncio.start_server(self._forward_connection, sock=self._listener)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def forward(self, *, requests: Link = OPEN, replies: Link = OPEN) -> None:
        """Accept connections, and use these links for all connections from now on."""
        self._is_refusing = False
        self._links = {"requests": requests, "replies": replies}

    def disconnect(self, *, reset: bool = False, refuse: bool = False) -> None:
        """Close all connections. `refuse` also closes new connections until `forward` is called."""
        self._is_refusing = refuse
        asyncio.run_coroutine_threadsafe(self._disconnect(reset), self._loop).result()

    async def _disconnect(self, reset: bool) -> None:
        for writer in self._writers:
            if reset:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
                writer.transport.abort()
            else:
                writer.close()

    async def _close(self) -> None:
        self._server.close()
        await self._disconnect(reset=False)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _forward_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_refusing:
            writer.close()
            return
        server_reader, server_writer = await asyncio.open_unix_connection(self._target)
        self._writers |= {writer, server_writer}
        try:
            directions = [
                asyncio.ensure_future(self._forward_bytes(reader, server_writer, "requests")),
                asyncio.ensure_future(self._forward_bytes(server_reader, writer, "replies")),
            ]
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in directions:
                task.cancel()
            self._writers -= {writer, server_writer}
            writer.close()
            server_writer.close()

    async def _forward_bytes(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: _Direction
    ) -> None:
        with suppress(OSError):
            while content := await reader.read(self._links[direction].piece_bytes):
                await self._delay(direction)
                writer.write(content)
                await writer.drain()

    async def _delay(self, direction: _Direction) -> None:
        await asyncio.sleep(self._links[direction].delay_seconds)
        while self._links[direction].is_stalled:  # noqa: ASYNC110  (another thread changes it)
            await asyncio.sleep(0.01)
