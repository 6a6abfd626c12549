"""Other servers that store sessions. Each one is optional and installed on demand."""

import json
import re
import subprocess
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.load import Target
from benchmarks.machine import MissingTool, python, require

_PEERS = Path(__file__).parent
_INSTALL_SECONDS = 600
_LEAST_NODE = 20

_NEW_SESSION = {
    "agentId": "11111111-1111-4111-8111-111111111111",
    "userId": "22222222-2222-4222-8222-222222222222",
    "metadata": {"channel": "web"},
}


class Peer(NamedTuple):
    """A server. It also receives PORT and REDIS_URL in its environment."""

    name: str
    folder: Path
    command: Sequence[str]
    environment: Mapping[str, str]
    probe_path: str
    """A path that returns 200 once the server is ready."""
    install: Callable[[], None]
    """Install the server if it is missing. Raises MissingTool if that fails."""
    open_session: Callable[[str], Target]
    """Create a session at a base URL; return a target that reads it."""


def _install_fastapi() -> None:
    environment, requirements = _PEERS / ".venv", _PEERS / "requirements.txt"
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if not _is_newer(environment / "installed", requirements):
        _run(python("-m", "venv", str(environment)), _PEERS)
        _run([*pip, "--requirement", str(requirements)], _PEERS)
        (environment / "installed").touch()


def _install_node(folder: Path) -> None:
    node, npm = require("node", f"Node.js {_LEAST_NODE} or newer"), require("npm", "it comes with Node.js")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < _LEAST_NODE:
        raise MissingTool(f"node is {version}, not {_LEAST_NODE} or newer")
    installed = folder / "node_modules" / "installed"
    if not _is_newer(installed, folder / "package.json"):
        _run([npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"], folder)
        installed.touch()


def _is_newer(installed: Path, wanted: Path) -> bool:
    return installed.exists() and installed.stat().st_mtime >= wanted.stat().st_mtime


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=_INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise MissingTool(f"the packages were not installed within {_INSTALL_SECONDS} seconds") from None
    except subprocess.CalledProcessError as failure:
        message = re.search(r"^(?:npm )?error:? .*", failure.stderr, re.IGNORECASE | re.MULTILINE)
        raise MissingTool(f"the packages could not be installed ({message[0] if message else failure})") from None


def _open_fastapi(url: str) -> Target:
    session, _ = _created(f"{url}/sessions")
    return Target([f"/sessions/{session['sessionId']}"])


def _open_express(url: str) -> Target:
    _, cookie = _created(f"{url}/sessions")
    return Target(["/session"], headers={"Cookie": cookie})


def _open_elizaos(url: str) -> Target:
    session, _ = _created(f"{url}/api/messaging/sessions")
    return Target([f"/api/messaging/sessions/{session['sessionId']}"])


def _created(url: str) -> tuple[dict[str, str], str]:
    """Create a session; return it with its cookie, if any."""
    request = urllib.request.Request(url, json.dumps(_NEW_SESSION).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as response:
        return json.load(response), response.headers.get("Set-Cookie", "").partition(";")[0]


PEERS = (
    Peer(
        name="FastAPI and redis-py",
        folder=_PEERS,
        command=[str(_PEERS / ".venv" / "bin" / "python"), "fastapi_redis.py"],
        environment={},
        probe_path="/openapi.json",
        install=_install_fastapi,
        open_session=_open_fastapi,
    ),
    Peer(
        name="express-session and connect-redis",
        folder=_PEERS / "express",
        command=["node", "server.js"],
        environment={"NODE_ENV": "production"},
        probe_path="/health",
        install=lambda: _install_node(_PEERS / "express"),
        open_session=_open_express,
    ),
    Peer(
        name="ElizaOS 1.7.2, sessions in memory",
        folder=_PEERS / "elizaos",
        command=["node", "server.js"],
        environment={"NODE_ENV": "production", "LOG_LEVEL": "fatal"},
        probe_path="/api/messaging/sessions/health",
        install=lambda: _install_node(_PEERS / "elizaos"),
        open_session=_open_elizaos,
    ),
)
