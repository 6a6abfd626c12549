"""Other servers for the same task. Their packages are installed on demand."""

import json
import subprocess
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.load import Target
from benchmarks.machine import MissingTool, install, is_newer, require, virtual_environment

_PEERS = Path(__file__).parent
_MIN_NODE_VERSION = 20

_NEW_SESSION = {
    "agentId": "11111111-1111-4111-8111-111111111111",
    "userId": "22222222-2222-4222-8222-222222222222",
    "metadata": {"channel": "web"},
}


class Peer(NamedTuple):
    """Another server. Its environment also contains PORT and REDIS_URL."""

    name: str
    folder: Path
    command: Sequence[str]
    environment: Mapping[str, str]
    probe_path: str
    """A path that responds with 200 as soon as the server is ready."""
    install: Callable[[], object]
    """Installs the packages if necessary. Raises MissingTool."""
    create_session: Callable[[str], Target]
    """Creates a session at a base URL. The target reads it."""


def _install_node(folder: Path) -> None:
    node, npm = require("node", f"Node.js {_MIN_NODE_VERSION} or newer"), require("npm", "part of Node.js")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < _MIN_NODE_VERSION:
        raise MissingTool(f"Node.js {_MIN_NODE_VERSION} or newer is required (found {version})")
    installed = folder / "node_modules" / "installed"
    if not is_newer(installed, folder / "package.json"):
        install([npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"], folder)
        installed.touch()


def _create_fastapi(url: str) -> Target:
    session, _ = _post(f"{url}/sessions")
    return Target([f"/sessions/{session['sessionId']}"])


def _create_express(url: str) -> Target:
    _, cookie = _post(f"{url}/sessions")
    return Target(["/session"], headers={"Cookie": cookie})


def _create_elizaos(url: str) -> Target:
    session, _ = _post(f"{url}/api/messaging/sessions")
    return Target([f"/api/messaging/sessions/{session['sessionId']}"])


def _post(url: str) -> tuple[dict[str, str], str]:
    """Create a session. Returns the response body, and the cookie if there is one."""
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
        install=lambda: virtual_environment(_PEERS),
        create_session=_create_fastapi,
    ),
    Peer(
        name="express-session and connect-redis",
        folder=_PEERS / "express",
        command=["node", "server.js"],
        environment={"NODE_ENV": "production"},
        probe_path="/health",
        install=lambda: _install_node(_PEERS / "express"),
        create_session=_create_express,
    ),
    Peer(
        name="ElizaOS 1.7.2, sessions in memory",
        folder=_PEERS / "elizaos",
        command=["node", "server.js"],
        environment={"NODE_ENV": "production", "LOG_LEVEL": "fatal"},
        probe_path="/api/messaging/sessions/health",
        install=lambda: _install_node(_PEERS / "elizaos"),
        create_session=_create_elizaos,
    ),
)
