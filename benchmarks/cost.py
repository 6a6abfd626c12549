"""What a request costs beside its time: the replica's and Redis's processor, commands, round trips; and memory."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import redis

from benchmarks.machine import cpu_seconds
from benchmarks.sessions import stored

_SENT_FOR_CHANGES = ("evalsha", "eval", "zrem")
_SENT_FOR_READS = ("hgetall", "time")
SESSIONS_WEIGHED = 100_000


class Cost(NamedTuple):
    """Of one request, on average; a batch's TIME is shared by its reads."""

    replica_cpu_us: float
    redis_cpu_us: float
    redis_commands: float
    redis_reads: float
    """How often Redis read from the connection: less than once a request, where requests share their round trips."""


def costed(run: Callable[[], int], pid: int, client: "redis.Redis") -> Cost:
    """The cost of each of the requests whose number `run` returns."""
    client.config_resetstat()
    before, cpu_before = _info(client), cpu_seconds(pid)
    requests = run()
    cpu, after = cpu_seconds(pid) - cpu_before, _info(client)
    redis_cpu = sum(after[name] - before[name] for name in ("used_cpu_user", "used_cpu_sys"))
    return Cost(
        replica_cpu_us=cpu / requests * 1e6,
        redis_cpu_us=redis_cpu / requests * 1e6,
        redis_commands=_sent(client) / requests,
        redis_reads=(after["total_reads_processed"] - before["total_reads_processed"]) / requests,
    )


def bytes_per_session(client: "redis.Redis", metadata_bytes: int) -> dict[str, float]:
    """Of a live session with all its keys and index entries, and of the tombstone alone that it leaves."""
    client.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call]
    empty = _info(client)["used_memory"]
    metadata = b'{"a":"%b"}' % (b"x" * (metadata_bytes - 8))
    session_ids = stored(client, SESSIONS_WEIGHED, metadata)
    full = _info(client)["used_memory"]
    tombstone = client.memory_usage(f"session:{{{session_ids[0][:2]}}}:{session_ids[0]}:tombstone")
    client.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call]
    return {"live": (full - empty) / SESSIONS_WEIGHED, "tombstone": float(tombstone or 0)}


def _sent(client: "redis.Redis") -> int:
    calls: Mapping[str, Any] = client.info("commandstats")
    changes = sum(calls[f"cmdstat_{name}"]["calls"] for name in _SENT_FOR_CHANGES if f"cmdstat_{name}" in calls)
    reads = sum(calls[f"cmdstat_{name}"]["calls"] for name in _SENT_FOR_READS if f"cmdstat_{name}" in calls)
    return int(changes or reads)


def _info(client: "redis.Redis") -> Mapping[str, Any]:
    return client.info("everything")
