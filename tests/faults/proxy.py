"""A network between a replica and Redis that can be told to fail: a TCP proxy in a thread of its own.

How requests and replies go is told by a `Way` each, and holds at once, for connections in use too.
"""

import asyncio
import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_CHUNK_BYTES = 65536
_WITH_A_RESET = struct.pack("ii", 1, 0)  # SO_LINGER for no time


class Way(NamedTuple):
    """What comes is passed on after so long, in pieces so small or, where it is stalled, once it no longer is."""

    delay_seconds: float = 0
    piece_bytes: int = _CHUNK_BYTES
    stalled: bool = False


OPEN = Way()
SLOW = Way(delay_seconds=0.2)
TRICKLE = Way(delay_seconds=0.001, piece_bytes=11)
STALLED = Way(stalled=True)


class Proxy:
    """Stands before the Redis on this socket, on a port of its own."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ways = {"requests": OPEN, "replies": OPEN}
        self._refuses = False
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}"

    def start(self) -> None:
        self._thread.start()
        serving = asyncio.start_server(self._join, sock=self._listener)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def go(self, *, requests: Way = OPEN, replies: Way = OPEN) -> None:
        """From now on they go like this, and new connections are taken."""
        self._refuses = False
        self._ways = {"requests": requests, "replies": replies}

    def cut(self, *, reset: bool = False, refuse: bool = False) -> None:
        """End every connection, in good order or with a reset, and with `refuse` every new one until told to `go`."""
        self._refuses = refuse
        asyncio.run_coroutine_threadsafe(self._cut(reset), self._loop).result()

    async def _cut(self, reset: bool) -> None:
        for writer in self._open:
            if reset:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _WITH_A_RESET)
                writer.transport.abort()
            else:
                writer.close()

    async def _end(self) -> None:
        self._server.close()
        await self._cut(reset=False)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on between a replica and Redis until either is done."""
        if self._refuses:
            writer.close()
            return
        server_reader, server_writer = await asyncio.open_unix_connection(self._target)
        self._open |= {writer, server_writer}
        try:
            passing = [
                asyncio.ensure_future(self._pass(reader, server_writer, "requests")),
                asyncio.ensure_future(self._pass(server_reader, writer, "replies")),
            ]
            await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in passing:
                one.cancel()
            self._open -= {writer, server_writer}
            writer.close()
            server_writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: str) -> None:
        with suppress(OSError):
            while content := await reader.read(self._ways[kind].piece_bytes):
                await self._delay(kind)
                writer.write(content)
                await writer.drain()

    async def _delay(self, kind: str) -> None:
        await asyncio.sleep(self._ways[kind].delay_seconds)
        while self._ways[kind].stalled:  # noqa: ASYNC110  (what ends it comes from another thread)
            await asyncio.sleep(0.01)
