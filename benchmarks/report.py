"""The results as Markdown tables, for a terminal and for the README."""

from collections.abc import Iterable, Sequence
from typing import Any

Results = dict[str, Any]


def written(results: Results) -> str:
    sections = [f"{results['machine']}, {results['when']}", _verbs(results["verbs"])]
    if "kinds" in results:
        sections += [_memory(results["memory"]), _kinds(results["kinds"])]
    if "stored" in results:
        sections += [_stored(results["stored"]), _peers(results["peers"])]
    return "\n\n".join(sections) + "\n"


def _verbs(rows: Sequence[Results]) -> str:
    head = ["request", "conn.", "req/s", "share of bare", "least to most", "p50 ms", "p99 ms", "p99 by bare"]
    head += ["replica µs", "Redis µs", "Redis reads"]
    measured = [row for row in rows if "per_second" in row]
    table = _table(head, (_verb(row) for row in measured))
    return "\n\n".join([table, *(f"{row['what']}: {row['resident_mib']:.0f}" for row in rows if "resident_mib" in row)])


def _verb(row: Results) -> list[str]:
    cells = [row["what"], str(row["connections"]), f"{row['per_second']:.0f}", f"{row['share_of_bare']:.2f}"]
    cells += [
        f"{row['share_least']:.2f} to {row['share_greatest']:.2f}",
        f"{row['p50_ms']:.2f}",
        f"{row['p99_ms']:.2f}",
    ]
    cells += [f"{row['p99_times_bare']:.1f}"]
    costs = ("replica_cpu_us", "redis_cpu_us", "redis_reads")
    return cells + [f"{row[name]:.2f}" if name in row else "" for name in costs]


def _memory(rows: Sequence[Results]) -> str:
    cells = ([row["what"], f"{row['live']:.0f}", f"{row['ended']:.0f}"] for row in rows)
    return _table(("bytes in Redis", "a live session, all keys", "an ended one, swept"), cells)


def _stored(rows: Sequence[Results]) -> str:
    head = ("request", "stored sessions", "req/s", "share of bare", "least to most", "p99 ms", "replica µs", "Redis µs")
    return _table(head, (_one_stored(row) for row in rows))


def _one_stored(row: Results) -> list[str]:
    shares = f"{row['share_least']:.2f} to {row['share_greatest']:.2f}"
    cells = [row["what"], f"{row['stored']:,}", f"{row['per_second']:.0f}", f"{row['share_of_bare']:.2f}"]
    return [*cells, shares, f"{row['p99_ms']:.2f}", f"{row['replica_cpu_us']:.0f}", f"{row['redis_cpu_us']:.0f}"]


def _kinds(rows: Sequence[Results]) -> str:
    """A row for each request, a column for each kind of servers."""
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    by_request: dict[str, list[str]] = {}
    for row in rows:
        cell = f"{row['per_second']:.0f} ({row['share_of_bare']:.2f}), {row['replica_cpu_us']:.0f} µs"
        by_request.setdefault(row["what"], []).append(cell)
    head = ["req/s, share of bare, replica µs", *kinds]
    return _table(head, ([request, *cells] for request, cells in by_request.items()))


def _peers(rows: Sequence[Results]) -> str:
    head = ("reading one session", "req/s", "this service, in turn with it", "times as many")
    return _table(head, (_peer(row) for row in rows))


def _peer(row: Results) -> list[str]:
    if "absent" in row:
        return [row["what"], f"absent: {row['absent']}", "", ""]
    return [row["what"], f"{row['per_second']:.0f}", f"{row['ours_per_second']:.0f}", f"{row['ours_times_theirs']:.1f}"]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
