"""Tests several workers on one port: shared connections, shared metrics, startup errors."""

import json
import os
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import AGENT, USER, StartReplica
from tests.process.service_calls import NO_REDIS
from tests.process.worker_processes import (
    TWO_WORKERS,
    call,
    children_of,
    connection_to_each_worker,
    open_connections,
    wait_for_restart,
    worker_of,
    workers_of,
)
from tests.redis_server import RedisServer
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

NEW_SESSION = json.dumps({"agentId": AGENT, "userId": USER})


def samples(metrics: str) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in metrics.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


# One service


def test_the_workers_share_the_connections_to_one_port(pair: Replica) -> None:
    with open_connections(pair, 64) as connections:
        workers = [worker_of(connection) for connection in connections]

    assert min(workers.count(worker) for worker in set(workers)) >= 10
    assert len(set(workers)) == 2
    assert pair.output.count("listening on") == 1
    assert "  workers        2\n" in pair.output


def test_the_command_line_overrides_the_setting(redis_server: RedisServer, start_replica: StartReplica) -> None:
    replica = start_replica(arguments=["serve", "--workers", "2"], REDIS_URL=redis_server.url, SESSION_WORKERS="1")

    with connection_to_each_worker(replica) as connections:
        assert len(connections) == 2


def test_a_single_worker_runs_without_gunicorn(redis_server: RedisServer, start_replica: StartReplica) -> None:
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_WORKERS="1")

    assert children_of(replica.pid) == []
    assert "workers" not in replica.output


def test_the_workers_share_one_embedded_server(start_replica: StartReplica, data_dir: Path) -> None:
    replica = start_replica(SESSION_DATA_DIR=str(data_dir), **TWO_WORKERS)

    with connection_to_each_worker(replica) as (first, second):
        created, session = call(first, "POST", SESSIONS, NEW_SESSION)
        found, _ = call(second, "GET", f"{SESSIONS}/{json.loads(session)['sessionId']}")
    replica.signal(signal.SIGINT)

    assert (created, found) == (201, 200)
    assert f"  data           {data_dir} (an embedded Valkey)\n" in replica.output
    assert replica.wait() == 0


def test_each_log_line_names_its_worker(pair: Replica) -> None:
    with connection_to_each_worker(pair) as connections:
        statuses = [call(connection, "GET", "/nowhere")[0] for connection in connections]
    pair.stop()
    lines = [json.loads(line) for line in pair.output.splitlines() if '"NOT_FOUND"' in line]

    assert statuses == [404, 404]
    assert sorted(line["worker"] for line in lines) == [1, 2]


# Metrics


def test_metrics_include_the_sweeper_lag_of_the_workers(start_replica: StartReplica) -> None:
    replica = start_replica(**NO_REDIS, **TWO_WORKERS)

    with open_connections(replica, 1) as (connection,):
        _, metrics = call(connection, "GET", "/metrics")

    assert samples(metrics)["sessions_sweeper_lag_seconds"] > 0


def test_every_worker_reports_the_metrics_of_all(start_replica: StartReplica, data_dir: Path) -> None:
    replica = start_replica(SESSION_DATA_DIR=str(data_dir), **TWO_WORKERS)

    with connection_to_each_worker(replica) as (first, second):
        created = [call(connection, "POST", SESSIONS, NEW_SESSION)[0] for connection in (first, first, second)]
        reports = [samples(call(connection, "GET", "/metrics")[1]) for connection in (first, second)]

    assert created == [201, 201, 201]
    assert [(each["sessions_created_total"], each["sessions_active"]) for each in reports] == [(3, 3), (3, 3)]
    assert reports[0]['process_cpu_seconds_total{worker="1"}'] > 0
    assert reports[0]['process_cpu_seconds_total{worker="2"}'] > 0


def test_counters_survive_the_restart_of_a_worker(pair: Replica) -> None:
    with connection_to_each_worker(pair) as connections:
        created = [call(connection, "POST", SESSIONS, NEW_SESSION)[0] for connection in connections]
        os.kill(workers_of(pair)[0], signal.SIGKILL)
    with connection_to_each_worker(pair) as connections:
        reports = [samples(call(connection, "GET", "/metrics")[1]) for connection in connections]

    assert created == [201, 201]
    assert [each["sessions_created_total"] for each in reports] == [2, 2]
    assert [len([name for name in each if name.startswith("process_open_fds")]) for each in reports] == [2, 2]


def metrics_folder_of(worker: int) -> Path:
    """Return the folder of a metrics file that the process has mapped."""
    for line in Path(f"/proc/{worker}/maps").read_text().splitlines():
        if line.endswith(".db"):
            return Path(line[line.index("/") :]).parent
    raise AssertionError("no metrics file is mapped")


def test_a_restarted_worker_reuses_its_metrics_files(pair: Replica) -> None:
    with connection_to_each_worker(pair):
        workers = workers_of(pair)
        folder = metrics_folder_of(workers[0])
    before = {file.name for file in folder.glob("*.db")}

    os.kill(workers[0], signal.SIGKILL)
    wait_for_restart(pair, workers)
    with connection_to_each_worker(pair) as connections:
        statuses = [call(connection, "GET", "/metrics")[0] for connection in connections]
    after, marks = {file.name for file in folder.glob("*.db")}, len(list(folder.glob("*.process")))
    pair.stop()

    assert statuses == [200, 200]
    assert after - before <= {"gauge_mostrecent_1.db", "gauge_mostrecent_2.db"}
    assert marks == 2
    assert not folder.exists()


# Startup errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"REDIS_URL": "redis://h:nonsense"}, "REDIS_URL: the URL is not valid"),
        ({"SESSION_API_KEYS_FILE": "/nowhere/keys"}, "SESSION_API_KEYS_FILE=/nowhere/keys: "),
        ({"HOST": "203.0.113.1", "SESSION_ALLOW_ANONYMOUS": "true"}, "HOST=203.0.113.1 PORT=0: "),
    ],
    ids=str,
)
def test_a_wrong_setting_ends_the_start_with_one_line(
    start_replica: StartReplica, settings: dict[str, str], message: str
) -> None:
    replica = start_replica(**TWO_WORKERS | NO_REDIS | settings)

    assert replica.wait() == 1
    assert message in replica.output
    assert replica.output.count("\n") == 1


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_service_cannot_share_the_port_of_the_workers(
    pair: Replica, start_replica: StartReplica, workers: str
) -> None:
    port = urlsplit(pair.url).port

    second = start_replica(PORT=str(port), SESSION_WORKERS=workers, **NO_REDIS)

    assert second.wait() == 1
    assert second.output.startswith(f"HOST=127.0.0.1 PORT={port}: ")
    assert second.output.lower().endswith("address already in use\n")


def test_a_used_port_ends_the_start_with_one_line(start_replica: StartReplica) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        replica = start_replica(PORT=str(listener.getsockname()[1]), **TWO_WORKERS, **NO_REDIS)

    assert replica.wait() == 1
    assert replica.output.lower().endswith("address already in use\n")
    assert replica.output.count("\n") == 1
