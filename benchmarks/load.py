"""The load: wrk against one URL, or against many ids in turn."""

import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from benchmarks.machine import LOAD_CORE, pinned, require

_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


class Target(NamedTuple):
    """What is asked of a server: `paths` in turn, beginning anywhere."""

    paths: Sequence[str]
    method: str = "GET"
    body: str = ""
    refused: bool = False
    """Whether the answers are refusals: 404 or 410."""
    headers: Mapping[str, str] = MappingProxyType({})


class Measured(NamedTuple):
    """One run: requests in all and a second, and latencies in milliseconds."""

    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float


def measure(url: str, target: Target, *, connections: int, seconds: float) -> Measured:
    """Raises AssertionError where answers were other than the target's: a wrong answer's speed is no figure."""
    wrk = require("wrk", "apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "target.lua")
        script.write_text(_script(target))
        command = [wrk, "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "-s", str(script), url]
        said = subprocess.run(pinned(command, LOAD_CORE), capture_output=True, text=True, check=True).stdout
    requests = int(_found(r"(\d+) requests in", said))
    refused = int(_found(r"Non-2xx or 3xx responses: (\d+)", said, otherwise="0"))
    expected = requests if target.refused else 0
    assert refused == expected, f"{refused} of {requests} requests to {target.paths[0]} were refused, not {expected}"
    assert "Socket errors" not in said, said
    return Measured(
        requests=requests,
        per_second=float(_found(r"Requests/sec:\s+([\d.]+)", said)),
        p50_ms=_in_ms(_found(r"50%\s+([\d.]+[mu]?s)", said)),
        p99_ms=_in_ms(_found(r"99%\s+([\d.]+[mu]?s)", said)),
    )


def _script(target: Target) -> str:
    paths = ",".join(f'"{path}"' for path in target.paths)
    content_type = {"Content-Type": "application/json"} if target.body else {}
    headers = ",".join(f'["{name}"] = "{value}"' for name, value in {**content_type, **target.headers}.items())
    return f"""
local paths, requests, turn = {{{paths}}}, {{}}, 0
local headers = {{{headers}}}
local body = {f"[[{target.body}]]" if target.body else "nil"}
function init()
    for i, path in ipairs(paths) do requests[i] = wrk.format("{target.method}", path, headers, body) end
end
function request()
    turn = turn % #requests + 1
    return requests[turn]
end
"""


def _found(pattern: str, text: str, otherwise: str | None = None) -> str:
    match = re.search(pattern, text)
    if match:
        return match[1]
    assert otherwise is not None, text
    return otherwise


def _in_ms(latency: str) -> float:
    """`12.50us`, `1.70ms` or `1.02s` in milliseconds."""
    match = re.fullmatch(r"([\d.]+)(us|ms|s)", latency)
    assert match is not None, latency
    return float(match[1]) * _MS[match[2]]
