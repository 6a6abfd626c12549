"""`make bench`: one table, and the same as JSON in benchmarks/results/. Run it on a machine that does nothing else."""

import argparse
import json
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import report, runs
from benchmarks.machine import MissingTool, redis_server, require
from service.observability import log
from service.shared_secret import SharedSecret

_RESULTS = Path(__file__).parent / "results"


def main() -> None:
    options = _options()
    log.configure_logging("json", "error", sys.stderr, SharedSecret())
    try:
        require("wrk", "apt-get install wrk")
        require("taskset", "apt-get install util-linux")
    except MissingTool as why:
        sys.exit(f"The benchmark needs one more thing: {why}.")
    results = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        **_measured(options),
    }
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / "latest.json").write_text(json.dumps(results, indent=2) + "\n")
    sys.stdout.write(report.written(results))


def _measured(options: argparse.Namespace) -> dict[str, object]:
    with redis_server() as redis_url:
        plan = runs.Plan(redis_url, options.seconds, options.rounds)
        if options.verbs:
            return {"verbs": runs.verbs(plan, (runs.USUAL_CONNECTIONS,))}
        measured: dict[str, object] = {"verbs": runs.verbs(plan), "memory": runs.memory(plan)}
        if not options.short:
            measured |= {"stored": runs.stored_sessions(plan), "peers": runs.peers(plan)}
        measured["kinds"] = runs.kinds_of_servers(plan)
    return measured


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2, help="how long each run lasts")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured; the median counts")
    parser.add_argument(
        "--verbs", action="store_true", help="the verbs alone, at 32 connections; half a minute a round"
    )
    parser.add_argument("--short", action="store_true", help="without a million sessions and without peers")
    return parser.parse_args()


if __name__ == "__main__":
    main()
