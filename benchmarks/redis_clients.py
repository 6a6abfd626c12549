"""Compare Redis clients: the CPU time of the client for one HMGET, with 32 concurrent callers."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import redis

from benchmarks.clients import callers
from benchmarks.machine import (
    SERVER_CORE,
    MissingTool,
    free_port,
    pinned,
    python,
    redis_server,
    virtual_environment,
)

_FOLDER = Path(callers.__file__).parent
_SCRIPT = str(_FOLDER / "callers.py")
_VALUE = "x" * 20
_CLIENTS = {
    "this service": "this-service",
    "redis-py, calls batched in pipelines": "batched-redis-py",
    "redis-py, one round trip per call": "redis-py",
}
_OTHER_CLIENTS = {"valkey-glide": "glide", "coredis": "coredis"}
"""Clients with an environment of their own."""

Row = dict[str, Any]


def compare(seconds: float, rounds: int) -> list[Row]:
    """Measure all clients alternately, each in a process of its own. Returns the medians."""
    commands = {name: python("-m", "benchmarks.clients.callers", client) for name, client in _CLIENTS.items()}
    missing: list[Row] = []
    try:
        interpreter = virtual_environment(_FOLDER)
        commands |= {name: [interpreter, _SCRIPT, client] for name, client in _OTHER_CLIENTS.items()}
    except MissingTool as error:
        missing = [{"name": name, "absent": str(error)} for name in _OTHER_CLIENTS]
    port, measured = free_port(), dict[str, list[Row]]()
    with redis_server(port) as url:
        redis.Redis.from_url(url).hset(callers.KEY, mapping=dict.fromkeys(callers.FIELDS, _VALUE))
        for _ in range(rounds):
            for name, command in commands.items():
                measured.setdefault(name, []).append(_measure(command, port, seconds))
    return [{"name": name, **_medians(rows)} for name, rows in measured.items()] + missing


def _measure(command: Sequence[str], port: int, seconds: float) -> Row:
    arguments = pinned([*command, str(port), str(seconds)], SERVER_CORE)
    result = json.loads(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)
    return {"client_us": result["cpu_seconds"] / result["calls"] * 1e6, "per_second": result["calls"] / seconds}


def _medians(rows: Sequence[Row]) -> Row:
    return {name: median(row[name] for row in rows) for name in rows[0]}
