"""Tests that faults of the system, of a worker or of a reader do not end the other workers."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from select import PIPE_BUF

import pytest

from tests.conftest import StartReplica
from tests.process.service_calls import WAIT_SECONDS, embedded_server_process, exited
from tests.process.worker_processes import (
    TWO_WORKERS,
    call,
    children_of,
    connection_to_each_worker,
    open_connections,
    wait_for_restart,
    workers_of,
)
from tests.redis_server import RedisServer
from tests.replica import COMMAND, Replica


@contextmanager
def no_new_files(process: int) -> Iterator[None]:
    """Let every attempt of the process to open a file fail with EMFILE."""
    soft, hard = resource.prlimit(process, resource.RLIMIT_NOFILE)
    resource.prlimit(process, resource.RLIMIT_NOFILE, (3, hard))
    yield
    resource.prlimit(process, resource.RLIMIT_NOFILE, (soft, hard))


def test_a_worker_that_cannot_be_forked_is_started_later(pair: Replica) -> None:
    killed, other = workers_of(pair)

    with no_new_files(pair.pid):
        os.kill(killed, signal.SIGKILL)
        line = pair.wait_for_line("a worker cannot be started and is tried again")
        assert children_of(pair.pid) == [other]
    with connection_to_each_worker(pair):
        assert other in workers_of(pair)

    assert "Too many open files" in line
    assert pair.stop() == 0


def test_workers_write_no_core_dump(pair: Replica) -> None:
    with connection_to_each_worker(pair):
        limits = {resource.prlimit(worker, resource.RLIMIT_CORE) for worker in workers_of(pair)}

    assert limits == {(0, 0)}


@contextmanager
def service_without_log_reader(redis_url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a service with two workers, whose standard error is a full pipe that no process reads."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while os.write(writer, bytes(PIPE_BUF)):
            pass
    os.set_blocking(writer, True)
    environment = {"PATH": os.environ["PATH"], "PORT": "0", "REDIS_URL": redis_url, **TWO_WORKERS}
    with subprocess.Popen(COMMAND, env=environment, stdout=subprocess.PIPE, stderr=writer) as process:
        try:
            assert process.stdout is not None
            assert b"listening" in process.stdout.readline()
            yield process
        finally:
            for child in [] if process.poll() is not None else children_of(process.pid):
                os.kill(child, signal.SIGKILL)
            process.kill()
            os.close(reader)
            os.close(writer)


def test_a_reader_that_stops_reading_the_log_blocks_neither_a_restart_nor_the_drain(redis_server: RedisServer) -> None:
    with service_without_log_reader(redis_server.url) as process:
        workers = workers_of(process)
        os.kill(workers[0], signal.SIGKILL)
        restarted = wait_for_restart(process, workers)
        process.terminate()
        code = process.wait(WAIT_SECONDS)

    assert workers[1] in restarted
    assert code == 0


@pytest.fixture
def audit_log(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


@pytest.fixture
def broken(redis_server: RedisServer, start_replica: StartReplica, audit_log: Path) -> Replica:
    """Start a service whose worker 1 cannot restart until `audit_log` is no directory."""
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_AUDIT_LOG=str(audit_log), **TWO_WORKERS)
    with connection_to_each_worker(replica):
        killed = workers_of(replica)[0]
    audit_log.unlink()
    audit_log.mkdir()
    os.kill(killed, signal.SIGKILL)
    replica.wait_for_line("worker 1 failed")
    return replica


def test_a_worker_that_cannot_start_logs_one_line(broken: Replica, audit_log: Path) -> None:
    broken.stop()
    lines = broken.output.partition("\n{")[2].splitlines()

    error = f"SESSION_AUDIT_LOG={audit_log} cannot be opened: Is a directory"
    assert f'"worker 1 failed: {error}"' in broken.output
    assert [line for line in lines[1:] if not line.startswith("{")] == []


def test_a_worker_that_cannot_start_receives_no_connections(broken: Replica, audit_log: Path) -> None:
    wait_for_restart(broken, workers_of(broken))
    with open_connections(broken, 32) as connections:
        statuses = {call(connection, "GET", "/livez")[0] for connection in connections}

    audit_log.rmdir()
    with connection_to_each_worker(broken) as (first, second):
        repaired = [call(connection, "GET", "/livez")[0] for connection in (first, second)]

    assert statuses == {200}
    assert repaired == [200, 200]


SIGNAL_DURING_FORK = """
import os, signal, time
from gunicorn import util
from service.__main__ import main

def start_slowly(_, parent=os.getpid()):
    if os.getpid() != parent:
        os.kill(parent, signal.SIGTERM)
        time.sleep(2)

util._setproctitle = start_slowly
main()
"""


def test_a_worker_that_is_being_forked_does_not_lose_sigterm(
    redis_server: RedisServer, start_replica: StartReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.replica.COMMAND", [sys.executable, "-c", SIGNAL_DURING_FORK])
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_DRAIN_TIMEOUT_SECONDS="0", **TWO_WORKERS)

    assert replica.wait() == 0


SHORT_TIMEOUT = """
from service.process import workers
from service.__main__ import main

workers.TIMEOUT_SECONDS = workers.STANDSTILL_SECONDS = 3
main()
"""


def test_workers_survive_a_standstill_of_the_machine(
    redis_server: RedisServer, start_replica: StartReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.replica.COMMAND", [sys.executable, "-c", SHORT_TIMEOUT])
    replica = start_replica(REDIS_URL=redis_server.url, **TWO_WORKERS)
    with connection_to_each_worker(replica) as connections:
        processes = [replica.pid, *workers_of(replica)]
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        time.sleep(4)
        for process in processes:
            os.kill(process, signal.SIGCONT)
            time.sleep(0.3)  # the parent checks the heartbeats first
        statuses = [call(connection, "GET", "/livez")[0] for connection in connections]

    assert statuses == [200, 200]
    assert replica.stop() == 0
    assert "WORKER TIMEOUT" not in replica.output


def test_the_parent_of_the_embedded_server_logs_as_configured(start_replica: StartReplica, data_dir: Path) -> None:
    replica = start_replica(SESSION_DATA_DIR=str(data_dir), **TWO_WORKERS)

    os.kill(embedded_server_process(data_dir), signal.SIGKILL)
    line = replica.wait_for_line("the embedded server exited with")

    assert json.loads(line)["level"] == "error"


SIGNAL_DURING_START = """
import os, signal
from service.process import workers
from service.__main__ import main

async def check_startup(_):
    os.kill(os.getpid(), signal.SIGTERM)

async def start_child(*arguments, start=workers.asyncio.create_subprocess_exec, **options):
    child = await start(*arguments, **options)
    if "--workers" in arguments:
        os.kill(os.getpid(), signal.SIGTERM)
    return child

workers.check_startup = check_startup
workers.asyncio.create_subprocess_exec = start_child
main()
"""


@pytest.mark.parametrize("is_embedded", [False, True])
def test_sigterm_during_the_start_exits_with_0(
    is_embedded: bool,
    redis_server: RedisServer,
    start_replica: StartReplica,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.replica.COMMAND", [sys.executable, "-c", SIGNAL_DURING_START])
    server = {"SESSION_DATA_DIR": str(data_dir)} if is_embedded else {"REDIS_URL": redis_server.url}

    assert start_replica(**server, **TWO_WORKERS).wait() == 0


def test_the_exit_code_is_137_if_gunicorn_is_killed_beside_the_embedded_server(
    start_replica: StartReplica, data_dir: Path
) -> None:
    replica = start_replica(SESSION_DATA_DIR=str(data_dir), **TWO_WORKERS)
    (child,) = set(children_of(replica.pid)) - {embedded_server_process(data_dir)}

    os.kill(child, signal.SIGKILL)

    assert replica.wait() == 128 + signal.SIGKILL


def test_orphaned_workers_skip_the_drain_pause(redis_server: RedisServer, start_replica: StartReplica) -> None:
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_DRAIN_PAUSE_SECONDS="60", **TWO_WORKERS)
    with connection_to_each_worker(replica):
        first, second = workers_of(replica)

    with exited(first), exited(second):
        replica.signal(signal.SIGKILL)
