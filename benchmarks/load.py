"""Generate load with wrk."""

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
    """The requests of a measurement. With several paths, requests use them in turn."""

    paths: Sequence[str]
    method: str = "GET"
    body: str = ""
    is_error_expected: bool = False
    """Whether all responses are errors, for example 404 or 410."""
    headers: Mapping[str, str] = MappingProxyType({})


class Measured(NamedTuple):
    """The result of one measurement."""

    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float


def measure(url: str, target: Target, *, connections: int, seconds: float) -> Measured:
    """Run wrk. Raises AssertionError if a response is not the expected one: then the figures mean nothing."""
    wrk = require("wrk", "apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "target.lua")
        script.write_text(_script(target))
        command = [wrk, "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "-s", str(script), url]
        output = subprocess.run(pinned(command, LOAD_CORE), capture_output=True, text=True, check=True).stdout
    requests = int(_match(r"(\d+) requests in", output))
    errors = int(_match(r"Non-2xx or 3xx responses: (\d+)", output, default="0"))
    expected = requests if target.is_error_expected else 0
    assert errors == expected, f"{errors} of {requests} requests to {target.paths[0]} failed (expected {expected})"
    assert "Socket errors" not in output, output
    return Measured(
        requests=requests,
        per_second=float(_match(r"Requests/sec:\s+([\d.]+)", output)),
        p50_ms=_in_ms(_match(r"50%\s+([\d.]+[mu]?s)", output)),
        p99_ms=_in_ms(_match(r"99%\s+([\d.]+[mu]?s)", output)),
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


def _match(pattern: str, text: str, default: str | None = None) -> str:
    match = re.search(pattern, text)
    if match:
        return match[1]
    assert default is not None, text
    return default


def _in_ms(latency: str) -> float:
    """Convert `12.50us`, `1.70ms` or `1.02s` to milliseconds."""
    match = re.fullmatch(r"([\d.]+)(us|ms|s)", latency)
    assert match is not None, latency
    return float(match[1]) * _MS[match[2]]
