"""Measure the CPU time and Redis reads of requests, and the memory of sessions."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import redis

from benchmarks.machine import cpu_seconds
from benchmarks.sessions import stored
from service.maintenance.sweeper import Sweeper
from service.observability.event_log import EventLog
from service.observability.metrics import Metrics
from service.redis_client.factory import redis_py_client
from service.redis_client.monitor import StoreMonitor
from service.sessions.events import SessionEvents
from service.sessions.keys import Keys
from service.settings import Settings
from service.shared_secret import SharedSecret
from tests.unpipelined_client import UnpipelinedClient

SESSIONS_WEIGHED = 100_000
_AT_ONCE = "0.001"


class Cost(NamedTuple):
    """The average cost of one request."""

    replica_cpu_us: float
    redis_cpu_us: float
    redis_reads: float
    """Reads from the socket by Redis; below 1 if requests share a round trip."""


def costed(run: Callable[[], int], pid: int, client: "redis.Redis") -> Cost:
    """Call `run`, which returns the number of requests, and return the cost of one."""
    client.config_resetstat()
    before, cpu_before = _info(client), cpu_seconds(pid)
    requests = run()
    cpu, after = cpu_seconds(pid) - cpu_before, _info(client)
    redis_cpu = sum(after[name] - before[name] for name in ("used_cpu_user", "used_cpu_sys"))
    return Cost(
        replica_cpu_us=cpu / requests * 1e6,
        redis_cpu_us=redis_cpu / requests * 1e6,
        redis_reads=(after["total_reads_processed"] - before["total_reads_processed"]) / requests,
    )


def bytes_per_session(url: str, metadata_bytes: int) -> dict[str, float]:
    """Return the memory of an active session with all its keys, and of a swept expired one."""
    client = redis.Redis.from_url(url)
    metadata = b'{"a":"%b"}' % (b"x" * (metadata_bytes - 8))
    empty = _emptied(client)
    stored(client, SESSIONS_WEIGHED, metadata)
    live = _memory(client) - empty
    empty = _emptied(client)
    stored(client, SESSIONS_WEIGHED, metadata, timeout_minutes=_AT_ONCE)
    asyncio.run(_swept(url))
    ended = _memory(client) - empty
    _emptied(client)
    return {"live": live / SESSIONS_WEIGHED, "ended": ended / SESSIONS_WEIGHED}


async def _swept(url: str) -> None:
    """Sweep until no expired session is left."""
    client = redis_py_client(url, 10)
    metrics = Metrics()
    redis_client, events = (
        UnpipelinedClient(client, 10, StoreMonitor(metrics)),
        SessionEvents(metrics, EventLog(SharedSecret())),
    )
    sweeper = Sweeper(redis_client, Keys(""), events, metrics, retention_ms=Settings().retention_ms)
    await sweeper.round()
    while sweeper.lag_ms:
        await sweeper.round()
    await client.aclose()


def _emptied(client: "redis.Redis") -> int:
    """Delete all data and return the memory in use."""
    client.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call]
    return _memory(client)


def _memory(client: "redis.Redis") -> int:
    return int(_info(client)["used_memory"])


def _info(client: "redis.Redis") -> Mapping[str, Any]:
    return client.info("everything")
