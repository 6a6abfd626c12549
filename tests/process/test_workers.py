"""Several workers behind one port: started, counted as one, started again where they die, and drained together."""

import asyncio
import http.client
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from service.errors import StartupError
from service.process import pulse, workers
from service.process.listening import listening
from service.process.worker import Assignment
from service.process.workers import Worker, pause_seconds
from service.settings import Settings
from tests.conftest import AGENT, USER, StartReplica
from tests.redis_server import RedisServer
from tests.replica import Replica
from tests.test_process import SOON, ended, open_session, read, until_refused
from tests.test_walkthrough import SESSIONS

TWO = {"SESSION_WORKERS": "2"}
NOWHERE = {"REDIS_URL": "unix:///nowhere/redis.sock"}
OPENING = json.dumps({"agentId": AGENT, "userId": USER})

Connection = http.client.HTTPConnection


def connection_to(replica: Replica) -> Connection:
    address = urlsplit(replica.url)
    assert address.hostname is not None
    return Connection(address.hostname, address.port, timeout=SOON)


def send(connection: Connection, method: str, path: str, body: str | None = None) -> None:
    connection.request(method, path, body, {"Content-Type": "application/json"})


def answer(connection: Connection) -> tuple[int, str]:
    response = connection.getresponse()
    return response.status, response.read().decode()


def ask(connection: Connection, method: str, path: str, body: str | None = None) -> tuple[int, str]:
    send(connection, method, path, body)
    return answer(connection)


def worker_behind(connection: Connection) -> str:
    """What the ids have in common that its worker's process gives to requests."""
    connection.request("GET", "/livez")
    response = connection.getresponse()
    response.read()
    return response.headers["X-Request-ID"].partition("-")[0]


@contextmanager
def connections_to(replica: Replica, number: int) -> Iterator[list[Connection]]:
    with ExitStack() as stack:
        yield [stack.enter_context(closing(connection_to(replica))) for _ in range(number)]


@contextmanager
def a_connection_to_each(replica: Replica) -> Iterator[list[Connection]]:
    """A kept connection to each of two workers."""
    latest = time.monotonic() + SOON
    found: dict[str, Connection] = {}
    with ExitStack() as stack:
        while len(found) < 2:
            assert time.monotonic() < latest, found
            connection = stack.enter_context(closing(connection_to(replica)))
            found.setdefault(worker_behind(connection), connection)
        yield list(found.values())


def processes_of(replica: Replica) -> list[int]:
    """The processes of its workers, where it has a Redis of its own nowhere."""
    return [int(word) for word in Path(f"/proc/{replica.pid}/task/{replica.pid}/children").read_text().split()]


def wait_until(path: str, status: int, connection: Connection) -> None:
    latest = time.monotonic() + SOON
    while ask(connection, "GET", path)[0] != status:
        assert time.monotonic() < latest


def numbers(metrics: str) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in metrics.splitlines() if not line.startswith("#")]
    return {name: float(number) for name, _, number in lines}


@pytest.fixture
def own_redis(data_dir: Path) -> Iterator[RedisServer]:
    """A server that a test may ill-treat."""
    server = RedisServer(data_dir)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def pair(redis_server: RedisServer, start_replica: StartReplica) -> Replica:
    return start_replica(REDIS_URL=redis_server.url, **TWO)


# They serve as one


def test_connections_to_the_one_port_are_spread_over_all(pair: Replica) -> None:
    with connections_to(pair, 64) as connections:
        served = [worker_behind(connection) for connection in connections]

    assert min(served.count(worker) for worker in set(served)) >= 10
    assert len(set(served)) == 2
    assert pair.banner.count("listening on") == 1
    assert "  workers        2\n" in pair.banner


def test_the_command_line_says_how_many(redis_server: RedisServer, start_replica: StartReplica) -> None:
    replica = start_replica(words=["serve", "--workers", "2"], REDIS_URL=redis_server.url, SESSION_WORKERS="1")

    assert len(processes_of(replica)) == 2


def test_one_worker_is_the_process_itself(redis_server: RedisServer, start_replica: StartReplica) -> None:
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_WORKERS="1")

    assert processes_of(replica) == []
    assert "workers" not in replica.banner


def test_what_one_opens_the_other_knows_on_their_embedded_server(start_replica: StartReplica, data_dir: Path) -> None:
    replica = start_replica(SESSION_DATA_DIR=str(data_dir), **TWO)

    with a_connection_to_each(replica) as (one, other):
        status, opened = ask(one, "POST", SESSIONS, OPENING)
        found, _ = ask(other, "GET", f"{SESSIONS}/{json.loads(opened)['sessionId']}")

    assert (status, found) == (201, 200)
    assert f"  data           {data_dir} (an embedded Valkey)\n" in replica.banner


def test_each_line_of_the_log_says_whose_it_is(pair: Replica) -> None:
    with a_connection_to_each(pair) as connections:
        asked = [ask(connection, "GET", "/nowhere") for connection in connections]
    pair.stop()
    lines = [json.loads(line) for line in pair.banner.splitlines() if '"NOT_FOUND"' in line]

    assert [status for status, _ in asked] == [404, 404]
    assert sorted(line["worker"] for line in lines) == [1, 2]


# Metrics


def test_how_far_their_sweepers_are_behind_is_told(start_replica: StartReplica) -> None:
    replica = start_replica(**NOWHERE, **TWO)

    with connections_to(replica, 1) as (connection,):
        _, metrics = ask(connection, "GET", "/metrics")

    assert numbers(metrics)["sessions_sweeper_lag_seconds"] > 0


def test_any_of_them_tells_the_numbers_of_all(start_replica: StartReplica, data_dir: Path) -> None:
    replica = start_replica(SESSION_DATA_DIR=str(data_dir), **TWO)

    with a_connection_to_each(replica) as (one, other):
        opened = [ask(connection, "POST", SESSIONS, OPENING)[0] for connection in (one, one, other)]
        told = [numbers(ask(connection, "GET", "/metrics")[1]) for connection in (one, other)]

    assert opened == [201, 201, 201]
    assert [(each["sessions_created_total"], each["sessions_active"]) for each in told] == [(3, 3), (3, 3)]
    assert told[0]['process_cpu_seconds_total{worker="1"}'] > 0
    assert told[0]['process_cpu_seconds_total{worker="2"}'] > 0


def test_what_a_worker_counted_outlasts_it(pair: Replica) -> None:
    with a_connection_to_each(pair) as connections:
        opened = [ask(connection, "POST", SESSIONS, OPENING)[0] for connection in connections]
        os.kill(processes_of(pair)[0], signal.SIGKILL)
    with a_connection_to_each(pair) as connections:
        told = [numbers(ask(connection, "GET", "/metrics")[1]) for connection in connections]

    assert opened == [201, 201]
    assert [each["sessions_created_total"] for each in told] == [2, 2]
    assert [len([name for name in each if name.startswith("process_open_fds")]) for each in told] == [2, 2]


def test_files_of_metrics_stay_as_few_as_the_workers_and_go_with_them(pair: Replica) -> None:
    folder = Path(Path(f"/proc/{processes_of(pair)[0]}/cmdline").read_text().split("\0")[4])
    before = sorted(file.name for file in folder.glob("*.db"))

    os.kill(processes_of(pair)[0], signal.SIGKILL)
    with a_connection_to_each(pair) as connections:
        told = [ask(connection, "GET", "/metrics")[0] for connection in connections]
    after, marks = {file.name for file in folder.glob("*.db")}, len(list(folder.glob("*.process")))
    pair.stop()

    assert told == [200, 200]
    assert after - set(before) <= {"gauge_mostrecent_1.db", "gauge_mostrecent_2.db"}
    assert marks == 2
    assert not folder.exists()


# Where one dies


def test_a_worker_that_was_killed_is_started_again_and_no_session_is_lost(pair: Replica) -> None:
    before = processes_of(pair)
    session_id = open_session(pair)

    os.kill(before[0], signal.SIGKILL)
    pair.line_with("worker 1 ended with -9; it is started again")
    with a_connection_to_each(pair) as connections:
        found = [ask(connection, "GET", f"{SESSIONS}/{session_id}")[0] for connection in connections]

    assert found == [200, 200]
    assert len(set(before) & set(processes_of(pair))) == 1


def test_connections_that_wait_for_a_worker_outlast_it(pair: Replica) -> None:
    os.kill(processes_of(pair)[0], signal.SIGSTOP)
    with connections_to(pair, 32) as connections:
        for connection in connections:
            send(connection, "GET", "/livez")
        os.kill(processes_of(pair)[0], signal.SIGKILL)
        statuses = {answer(connection)[0] for connection in connections}

    assert statuses == {200}


def test_the_workers_end_with_their_parent(pair: Replica) -> None:
    one, other = processes_of(pair)

    with ended(one), ended(other):
        pair.signal(signal.SIGKILL)


def test_a_worker_that_keeps_dying_is_left_alone_for_longer_and_longer() -> None:
    assert [pause_seconds(deaths) for deaths in (1, 2, 3, 4)] == [0.1, 0.2, 0.4, 0.8]
    assert [pause_seconds(deaths) for deaths in (100, 10_000)] == [30, 30]


@pytest.fixture
def made_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes workers of this program."""

    def made(program: str) -> None:
        monkeypatch.setattr(Assignment, "command", [sys.executable, "-S", "-c", program])

    return made


async def test_a_worker_that_does_not_serve_says_why(made_of: Callable[[str], None], tmp_path: Path) -> None:
    made_of("raise SystemExit(3)")
    port = await listening(Settings(port=0))
    worker = Worker(1, "", port, tmp_path)

    with pytest.raises(StartupError, match="Worker 1 ended with 3 before it served"):
        await worker.start()
    await worker.kill()
    port.close()


async def test_a_worker_that_does_not_come_to_serve_is_not_waited_for(
    made_of: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made_of("import time; time.sleep(600)")
    monkeypatch.setattr(workers, "START_SECONDS", 0.2)
    port = await listening(Settings(port=0))
    worker = Worker(1, "", port, tmp_path)

    with pytest.raises(StartupError, match="Worker 1 did not serve in time"):
        await worker.start()
    await worker.kill()
    port.close()


async def test_a_worker_that_is_wedged_is_killed_and_started_again(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pulse, "LOOK_SECONDS", 0.2)
    port = await listening(Settings(port=0))
    worker = Worker(1, redis_server.url, port, tmp_path)
    await worker.start()
    keeping = asyncio.create_task(worker.keep_running())

    os.kill(pid_of(worker), signal.SIGSTOP)
    async with asyncio.timeout(SOON):
        alive = await answers(port.url)
    keeping.cancel()
    await asyncio.wait([keeping])
    await worker.kill()
    port.close()

    assert alive.startswith(b"HTTP/1.1 200")
    assert caplog.messages == ["worker 1 did not answer for 15 s and was killed; it is started again"]


def pid_of(worker: Worker) -> int:
    assert worker._process is not None
    return worker._process.pid


async def answers(url: str) -> bytes:
    """What is answered to a connection that waits for a worker."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: it\r\n\r\n")
    answer = await reader.readline()
    writer.close()
    return answer


async def test_a_worker_beats_for_as_long_as_it_serves(redis_server: RedisServer, tmp_path: Path) -> None:
    port = await listening(Settings(port=0))
    worker = Worker(1, redis_server.url, port, tmp_path)
    await worker.start()
    assert worker._process is not None
    assert worker._process.stdout is not None

    beats = [await worker._process.stdout.readline() for _ in range(3)]
    await worker.kill()
    port.close()

    assert beats == [pulse.BEAT] * 3


async def test_while_a_worker_is_left_alone_no_connection_waits_for_it(
    made_of: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made_of("print('serving')")
    monkeypatch.setattr(workers, "PATIENCE_SECONDS", 0)
    port = await listening(Settings(port=0))
    worker = Worker(1, "", port, tmp_path)
    await worker.start()
    at_first = await accepts(port.url)

    keeping = asyncio.create_task(worker.keep_running())
    await until_it_accepts(port.url, False)
    await until_it_accepts(port.url, True)
    keeping.cancel()
    await asyncio.wait([keeping])
    await worker.kill()
    port.close()

    assert at_first


async def accepts(url: str) -> bool:
    address = urlsplit(url)
    try:
        _, writer = await asyncio.open_connection(address.hostname, address.port)
    except ConnectionError:
        return False
    writer.close()
    return True


async def until_it_accepts(url: str, expected: bool) -> None:
    async with asyncio.timeout(SOON):
        while await accepts(url) is not expected:
            pass


# Stopping


def test_what_is_in_flight_in_any_of_them_is_finished(own_redis: RedisServer, start_replica: StartReplica) -> None:
    replica = start_replica(REDIS_URL=own_redis.url, SESSION_STORE_TIMEOUT_SECONDS="20", **TWO)
    path = f"{SESSIONS}/{open_session(replica)}/heartbeat"

    with a_connection_to_each(replica) as busy, a_connection_to_each(replica) as idle:
        own_redis.pause()
        for connection in busy:
            send(connection, "POST", path)
        assert [ask(connection, "GET", "/livez")[0] for connection in idle] == [200, 200]  # so the others were read
        replica.signal(signal.SIGTERM)
        until_refused(replica)
        own_redis.resume()
        answers = [answer(connection) for connection in busy]

    assert [status for status, _ in answers] == [200, 200]
    assert sorted(json.loads(session)["renewalCount"] for _, session in answers) == [1, 2]
    assert replica.wait() == 0


def test_readiness_turns_first_in_all_of_them(redis_server: RedisServer, start_replica: StartReplica) -> None:
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_DRAIN_PAUSE_SECONDS="2", **TWO)
    session_id = open_session(replica)

    with a_connection_to_each(replica) as connections:
        replica.signal(signal.SIGTERM)
        for connection in connections:
            wait_until("/readyz", 503, connection)
        kept = [ask(connection, "GET", f"{SESSIONS}/{session_id}")[0] for connection in connections]
        new, _ = read(replica, session_id)

    assert (kept, new) == ([200, 200], 200)
    assert replica.wait() == 0


def test_being_told_by_everybody_and_twice_it_drains_once(
    redis_server: RedisServer, start_replica: StartReplica
) -> None:
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_DRAIN_PAUSE_SECONDS="0.5", **TWO)

    for process in (*processes_of(replica), replica.pid):
        os.kill(process, signal.SIGINT)
    replica.line_with("the workers finish requests in flight first")
    for process in (*processes_of(replica), replica.pid):
        os.kill(process, signal.SIGTERM)

    assert replica.wait() == 0
    assert replica.banner.count("stopping: requests in flight are finished first") == 2
    assert "started again" not in replica.banner
    assert "Traceback" not in replica.banner


def test_a_worker_that_is_killed_before_it_has_drained_is_told_of(
    redis_server: RedisServer, start_replica: StartReplica
) -> None:
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_DRAIN_PAUSE_SECONDS="60", **TWO)
    one, other = processes_of(replica)

    replica.signal(signal.SIGTERM)
    replica.line_with("the workers finish requests in flight first")
    os.kill(one, signal.SIGKILL)
    os.kill(other, signal.SIGKILL)

    assert replica.wait() == 1
    assert "worker 1 ended with -9 before it had drained" in replica.banner


async def test_a_worker_that_is_wedged_does_not_hold_up_the_end(
    made_of: Callable[[str], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made_of("import signal; signal.signal(15, signal.SIG_IGN); print('serving', flush=True); signal.pause()")
    port = await listening(Settings(port=0))
    worker = Worker(1, "", port, tmp_path)
    await worker.start()

    drained = await worker.drain(0.1)
    port.close()

    assert not drained
    assert caplog.messages == ["worker 1 ended with -9 before it had drained"]


def test_workers_are_given_the_time_to_drain_and_no_more() -> None:
    settings = Settings(session_drain_pause_seconds=60, session_drain_timeout_seconds=10)

    assert workers._drain_seconds(settings) == 60 + 2 * 10 + 15


# Where they cannot start


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"SESSION_WORKERS": "65"}, "SESSION_WORKERS must be between 1 and 64 (got 65)"),
        ({"REDIS_URL": "redis://h:nonsense"}, "REDIS_URL: the URL is not valid"),
        ({"HOST": "203.0.113.1", "SESSION_ALLOW_ANONYMOUS": "true"}, "HOST=203.0.113.1 PORT=0: "),
    ],
    ids=str,
)
def test_a_wrong_setting_stops_them_all_in_one_line(
    start_replica: StartReplica, settings: dict[str, str], said: str
) -> None:
    replica = start_replica(**TWO | NOWHERE | settings)

    assert replica.wait() == 1
    assert said in replica.banner
    assert replica.banner.count("\n") == 1


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_other_workers_share_is_not_shared_with_them(
    pair: Replica, start_replica: StartReplica, workers: str
) -> None:
    port = urlsplit(pair.url).port

    second = start_replica(PORT=str(port), SESSION_WORKERS=workers, **NOWHERE)

    assert second.wait() == 1
    assert second.banner.startswith(f"HOST=127.0.0.1 PORT={port}: ")
    assert second.banner.lower().endswith("address already in use\n")


def test_a_port_in_use_stops_them_in_one_line(start_replica: StartReplica) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        replica = start_replica(PORT=str(listener.getsockname()[1]), **TWO, **NOWHERE)

    assert replica.wait() == 1
    assert replica.banner.lower().endswith("address already in use\n")
    assert replica.banner.count("\n") == 1
