"""Render benchmark results as the Markdown tables of docs/performance.md."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

Results = dict[str, Any]

_FEATURES = (
    ("log line per request", "0", "get 200", "get 200, request log off"),
    ("API key", "0", "get 200, API key", "get 200"),
    ("rate limit per address", "1", "get 200, limit per address", "get 200"),
    (
        "rate limit per caller, API key",
        "1",
        "get 200, API key, limits per address and caller",
        "get 200, limit per address",
    ),
    ("audit log", "0", "create", "create, audit log off"),
    ("session caps", "1", "create, caps per user and agent", "create"),
)
"""A feature, its round trips to Redis, a request with it, and the same request without it."""

_GIB = 2**30


def tables(results: Results) -> dict[str, str]:
    """Return each measured table by its name in docs/performance.md."""
    return dict(_tables(results))


def rendered(results: Results) -> str:
    """Return all tables as text for a terminal."""
    return "\n\n".join(f"{name}\n\n{table}" for name, table in tables(results).items()) + "\n"


def _tables(results: Results) -> Iterator[tuple[str, str]]:
    requests = [row for row in results.get("requests", ()) if "per_second" in row]
    for connections in dict.fromkeys(row["connections"] for row in requests):
        rows = [row for row in requests if row["connections"] == connections]
        yield f"requests-{connections}", _measured(results, _requests(rows))
        if connections == 32:
            yield "features", _measured(results, _features(rows))
    if "requests" in results:
        yield "replica-memory", _dated(results, _replica_memory(results["requests"]))
    if "memory" in results:
        yield "session-memory", _dated(results, _session_memory(results["memory"]))
    if "topologies" in results:
        yield "topologies", _measured(results, _topologies(results["topologies"]))
    if "redis_clients" in results:
        yield "redis-clients", _measured(results, _redis_clients(results["redis_clients"]))
    if "stored" in results:
        yield "stored-sessions", _measured(results, _stored_sessions(results["stored"]))
    if "peers" in results:
        yield "peers", _measured(results, _peers(results["peers"]))


def _measured(results: Results, table: str) -> str:
    rounds, seconds = results["rounds"], results["seconds"]
    return _dated(results, table, f", median of {rounds} rounds of {seconds:g} s")


def _dated(results: Results, table: str, remark: str = "") -> str:
    """Return the table below a line with the date and the machine."""
    date = results["when"].partition("T")[0]
    return f"{date}, {results['machine']}{remark}\n\n{table}"


def _requests(rows: Sequence[Results]) -> str:
    numbers = ("req/s", "share of bare", "lowest share", "highest share", "p50 ms", "p99 ms", "p99 by bare")
    costs = ("replica µs", "Redis µs", "replicas per Redis", "Redis reads")
    return _table(["request"], [*numbers, *costs], (_request(row) for row in rows))


def _request(row: Results) -> list[str]:
    cells = [row["name"], f"{row['per_second']:,.0f}"]
    cells += [f"{row[name]:.2f}" for name in ("share_of_bare", "share_least", "share_greatest", "p50_ms", "p99_ms")]
    cells += [f"{row['p99_times_bare']:.1f}"]
    if "replica_cpu_us" not in row:
        return [*cells, "", "", "", ""]
    replica_us, redis_us = row["replica_cpu_us"], row["redis_cpu_us"]
    return [*cells, f"{replica_us:.2f}", f"{redis_us:.2f}", f"{replica_us / redis_us:.1f}", f"{row['redis_reads']:.2f}"]


def _features(rows: Sequence[Results]) -> str:
    costs = {row["name"]: row["replica_cpu_us"] for row in rows if "replica_cpu_us" in row}
    cells = (
        [feature, round_trips, f"{costs[with_it] - costs[without]:.1f}"]
        for feature, round_trips, with_it, without in _FEATURES
    )
    return _table(["feature"], ["round trips to Redis", "replica µs"], cells)


def _replica_memory(rows: Sequence[Results]) -> str:
    cells = ([row["name"], f"{row['resident_mib']:.0f}"] for row in rows if "resident_mib" in row)
    return _table(["process"], ["MiB"], cells)


def _session_memory(rows: Sequence[Results]) -> str:
    numbers = ("active session", "without metadata", "expired session", "active sessions per GiB")
    return _table(["metadata"], numbers, (_one_session_memory(row) for row in rows))


def _one_session_memory(row: Results) -> list[str]:
    active, metadata = row["live"], row["metadata_bytes"]
    return [
        f"{metadata} bytes",
        f"{active:,.0f}",
        f"{active - metadata:,.0f}",
        f"{row['ended']:.0f}",
        f"{_GIB / active:,.0f}",
    ]


def _topologies(rows: Sequence[Results]) -> str:
    requests = list(dict.fromkeys(row["name"] for row in rows))
    cells = (
        [
            row["name"],
            row["topology"],
            f"{row['per_second']:,.0f}",
            f"{row['share_of_bare']:.2f}",
            f"{row['replica_cpu_us']:.0f}",
        ]
        for row in sorted(rows, key=lambda row: requests.index(row["name"]))
    )
    return _table(["request", "Redis"], ["req/s", "share of bare", "replica µs"], cells)


def _stored_sessions(rows: Sequence[Results]) -> str:
    numbers = ("req/s", "share of bare", "lowest share", "highest share", "p99 ms", "replica µs", "Redis µs")
    return _table(["request", "stored sessions"], numbers, (_one_stored(row) for row in rows))


def _one_stored(row: Results) -> list[str]:
    cells = [row["name"], f"{row['stored']:,}", f"{row['per_second']:,.0f}"]
    cells += [f"{row[name]:.2f}" for name in ("share_of_bare", "share_least", "share_greatest", "p99_ms")]
    return [*cells, f"{row['replica_cpu_us']:,.0f}", f"{row['redis_cpu_us']:,.0f}"]


def _redis_clients(rows: Sequence[Results]) -> str:
    return _table(["client"], ["client µs", "calls/s"], (_redis_client(row) for row in rows))


def _redis_client(row: Results) -> list[str]:
    if "absent" in row:
        return [f"{row['name']} (not measured: {row['absent']})", "", ""]
    return [row["name"], f"{row['client_us']:.1f}", f"{row['per_second']:,.0f}"]


def _peers(rows: Sequence[Results]) -> str:
    return _table(["server"], ["req/s", "this service, req/s", "ratio"], (_peer(row) for row in rows))


def _peer(row: Results) -> list[str]:
    if "absent" in row:
        return [f"{row['name']} (not measured: {row['absent']})", "", "", ""]
    per_second, ours = f"{row['per_second']:,.0f}", f"{row['ours_per_second']:,.0f}"
    return [row["name"], per_second, ours, f"{row['ours_times_theirs']:.1f}"]


def _table(names: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose number columns are aligned to the right."""
    rule = "|" + "---|" * len(names) + "---:|" * len(numbers)
    head, *body = ("| " + " | ".join(cells) + " |" for cells in ([*names, *numbers], *rows))
    return "\n".join([head, rule, *body])
