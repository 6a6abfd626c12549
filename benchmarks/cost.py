"""The cost of a request: CPU time of the replica and of Redis, and round trips. The memory of a session."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import redis

from benchmarks.machine import cpu_seconds
from benchmarks.sessions import store_sessions
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

MEASURED_SESSIONS = 100_000
_EXPIRES_AT_ONCE = "0.001"


class Cost(NamedTuple):
    """The mean cost of one request."""

    replica_cpu_us: float
    redis_cpu_us: float
    redis_reads: float
    """Reads from the socket by Redis. Below 1 if requests share round trips."""


def measure_cost(run: Callable[[], int], pid: int, client: "redis.Redis") -> Cost:
    """Measure the cost of requests. `run` makes them and returns their number."""
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
    """Measure the memory of an active session with all its keys, and of an expired and swept one."""
    client = redis.Redis.from_url(url)
    metadata = b'{"a":"%b"}' % (b"x" * (metadata_bytes - 8))
    empty = _flush(client)
    store_sessions(client, MEASURED_SESSIONS, metadata)
    live = _memory(client) - empty
    empty = _flush(client)
    store_sessions(client, MEASURED_SESSIONS, metadata, timeout_minutes=_EXPIRES_AT_ONCE)
    asyncio.run(_sweep(url))
    ended = _memory(client) - empty
    _flush(client)
    return {"live": live / MEASURED_SESSIONS, "ended": ended / MEASURED_SESSIONS}


async def _sweep(url: str) -> None:
    """Sweep all expired sessions."""
    redis_py, metrics = redis_py_client(url, 10), Metrics()
    client = UnpipelinedClient(redis_py, 10, StoreMonitor(metrics))
    events = SessionEvents(metrics, EventLog(SharedSecret()))
    sweeper = Sweeper(client, Keys(""), events, metrics, retention_ms=Settings().retention_ms)
    await sweeper.sweep()
    while sweeper.lag_ms:
        await sweeper.sweep()
    await redis_py.aclose()


def _flush(client: "redis.Redis") -> int:
    """Delete all keys. Returns the memory that remains in use."""
    client.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call]
    return _memory(client)


def _memory(client: "redis.Redis") -> int:
    return int(_info(client)["used_memory"])


def _info(client: "redis.Redis") -> Mapping[str, Any]:
    return client.info("everything")
