"""Tests that gunicorn restarts workers and drains them together."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from service.process.workers import GunicornApplication
from service.settings import Settings
from tests.conftest import StartReplica
from tests.process.service_calls import create_session, exited, get_session, wait_until_refused
from tests.process.worker_processes import (
    TWO_WORKERS,
    call,
    children_of,
    connection_to_each_worker,
    open_connections,
    receive,
    send,
    wait_for_restart,
    wait_for_status,
    workers_of,
)
from tests.redis_server import RedisServer
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

# Restarts


def test_a_killed_worker_is_restarted_without_losing_sessions(pair: Replica) -> None:
    workers = workers_of(pair)
    session_id = create_session(pair)

    os.kill(workers[0], signal.SIGKILL)
    pair.wait_for_line(f"worker 1 (pid {workers[0]}) exited and is restarted")
    with connection_to_each_worker(pair) as connections:
        statuses = [call(connection, "GET", f"{SESSIONS}/{session_id}")[0] for connection in connections]

    assert statuses == [200, 200]
    assert len(set(workers) & set(workers_of(pair))) == 1


def test_waiting_connections_outlive_a_killed_worker(pair: Replica) -> None:
    worker = workers_of(pair)[0]
    os.kill(worker, signal.SIGSTOP)
    with open_connections(pair, 32) as connections:
        for connection in connections:
            send(connection, "GET", "/livez")
        os.kill(worker, signal.SIGKILL)
        statuses = {receive(connection)[0] for connection in connections}

    assert statuses == {200}


def test_the_workers_exit_when_gunicorn_is_killed(pair: Replica) -> None:
    first, second = workers_of(pair)

    with exited(first), exited(second):
        pair.signal(signal.SIGKILL)


def test_the_workers_exit_when_the_parent_of_gunicorn_is_killed(start_replica: StartReplica, data_dir: Path) -> None:
    replica = start_replica(SESSION_DATA_DIR=str(data_dir), **TWO_WORKERS)
    with connection_to_each_worker(replica):
        first, second = next(filter(None, map(children_of, children_of(replica.pid))))

    with exited(first), exited(second):
        replica.signal(signal.SIGKILL)


def test_a_worker_restarts_at_most_once_per_second(pair: Replica) -> None:
    started = time.monotonic()
    for _ in range(3):
        workers = workers_of(pair)
        os.kill(max(workers), signal.SIGKILL)
        wait_for_restart(pair, workers)

    assert time.monotonic() - started > 1.9


def test_a_worker_without_heartbeats_is_killed_and_restarted(
    redis_server: RedisServer, start_replica: StartReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "from service.process import workers; from service.__main__ import main; workers.TIMEOUT_SECONDS = 2; main()"
    )
    monkeypatch.setattr("tests.replica.COMMAND", [sys.executable, "-c", program])
    replica = start_replica(REDIS_URL=redis_server.url, **TWO_WORKERS)
    workers = workers_of(replica)

    os.kill(workers[0], signal.SIGSTOP)
    current = wait_for_restart(replica, workers)

    assert workers[0] not in current
    assert workers[1] in current


# Drain


def test_all_workers_finish_the_requests_in_flight(own_redis: RedisServer, start_replica: StartReplica) -> None:
    own_redis.start()
    replica = start_replica(REDIS_URL=own_redis.url, SESSION_STORE_TIMEOUT_SECONDS="20", **TWO_WORKERS)
    path = f"{SESSIONS}/{create_session(replica)}/heartbeat"

    with connection_to_each_worker(replica) as busy, connection_to_each_worker(replica) as idle:
        own_redis.pause()
        for connection in busy:
            send(connection, "POST", path)
        assert [call(connection, "GET", "/livez")[0] for connection in idle] == [200, 200]  # both read their request
        replica.signal(signal.SIGTERM)
        wait_until_refused(replica)
        own_redis.resume()
        responses = [receive(connection) for connection in busy]

    assert [status for status, _ in responses] == [200, 200]
    assert sorted(json.loads(session)["renewalCount"] for _, session in responses) == [1, 2]
    assert replica.wait() == 0


def test_all_workers_become_unready_before_they_stop_listening(
    redis_server: RedisServer, start_replica: StartReplica
) -> None:
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_DRAIN_PAUSE_SECONDS="2", **TWO_WORKERS)
    session_id = create_session(replica)

    with connection_to_each_worker(replica) as connections:
        replica.signal(signal.SIGTERM)
        for connection in connections:
            wait_for_status(connection, "/readyz", 503)
        kept = [call(connection, "GET", f"{SESSIONS}/{session_id}")[0] for connection in connections]
        new, _ = get_session(replica, session_id)

    assert (kept, new) == ([200, 200], 200)
    assert replica.wait() == 0


def test_repeated_signals_do_not_shorten_the_drain(redis_server: RedisServer, start_replica: StartReplica) -> None:
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_DRAIN_PAUSE_SECONDS="0.5", **TWO_WORKERS)
    with connection_to_each_worker(replica):
        processes = [replica.pid, *workers_of(replica)]

    for process in processes:
        os.kill(process, signal.SIGINT)
    replica.wait_for_line("requests in flight are finished first")
    for process in processes:
        os.kill(process, signal.SIGTERM)

    assert replica.wait() == 0
    assert replica.output.count("stopping: requests in flight are finished first") == 2
    assert "restarted" not in replica.output
    assert "was sent" not in replica.output
    assert "Traceback" not in replica.output


def test_the_exit_code_is_1_if_a_worker_dies_before_it_has_drained(
    redis_server: RedisServer, start_replica: StartReplica
) -> None:
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_DRAIN_PAUSE_SECONDS="60", **TWO_WORKERS)
    with connection_to_each_worker(replica):
        first, second = workers_of(replica)

    replica.signal(signal.SIGTERM)
    replica.wait_for_line("requests in flight are finished first")
    os.kill(first, signal.SIGKILL)
    os.kill(second, signal.SIGKILL)

    assert replica.wait() == 1
    assert f"worker 1 (pid {first}) exited before it was drained" in replica.output


def test_the_time_to_drain_covers_the_pause_and_twice_the_timeout(tmp_path: Path) -> None:
    settings = Settings(session_drain_pause_seconds=60, session_drain_timeout_seconds=10)

    assert GunicornApplication(settings, 2, [], tmp_path).cfg.graceful_timeout == 60 + 2 * 10 + 15
