"""Measure the service and print the tables of docs/performance.md. Run it on an idle machine."""

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from benchmarks import document, redis_clients, report, runs
from benchmarks.machine import MissingTool, redis_server, require
from service.observability import log
from service.shared_secret import SharedSecret


def main() -> None:
    options = parse_options()
    log.configure_logging("json", "error", sys.stderr, SharedSecret())
    try:
        require("wrk", "apt-get install wrk")
        require("taskset", "apt-get install util-linux")
    except MissingTool as error:
        sys.exit(f"The benchmark cannot run: {error}.")
    results = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "rounds": options.rounds,
        "seconds": options.seconds,
        **_measured(options),
    }
    document.LATEST.parent.mkdir(exist_ok=True)
    document.LATEST.write_text(json.dumps(results, indent=2) + "\n")
    sys.stdout.write(report.rendered(results))
    if options.write:
        document.update(results)


def _measured(options: argparse.Namespace) -> dict[str, object]:
    if options.clients:
        return {"redis_clients": redis_clients.compare(options.seconds, options.rounds)}
    with redis_server() as redis_url:
        plan = runs.Plan(redis_url, options.seconds, options.rounds)
        if options.requests:
            return {"requests": runs.requests(plan, (runs.DEFAULT_CONNECTIONS,))}
        measured: dict[str, object] = {"requests": runs.requests(plan), "memory": runs.memory(plan)}
        if not options.short:
            measured |= {"stored": runs.stored_sessions(plan), "peers": runs.peers(plan)}
            measured["redis_clients"] = redis_clients.compare(options.seconds, options.rounds)
        measured["topologies"] = runs.redis_topologies(plan)
        return measured


def parse_options(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--seconds", type=int, default=2, help="duration of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds; tables show the median")
    parser.add_argument(
        "--requests", action="store_true", help="measure only requests over 32 connections (half a minute per round)"
    )
    parser.add_argument("--clients", action="store_true", help="measure only Redis clients (ten seconds per round)")
    parser.add_argument(
        "--short", action="store_true", help="skip the stored sessions, the other servers and the other Redis clients"
    )
    parser.add_argument(
        "--write", action="store_true", help="also update docs/performance.md and the figures in other documents"
    )
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
