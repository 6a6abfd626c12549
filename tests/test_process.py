"""The service as processes: started, stopped, killed, started again, and several at once."""

import http.client
import json
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis as redis_py

from tests.conftest import AGENT, USER, StartReplica
from tests.redis_server import RedisServer
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

BRIEF = {"SESSION_MIN_TIMEOUT_MINUTES": "0.001"}
NOWHERE = {"REDIS_URL": "unix:///nowhere/redis.sock"}
SOON = 20
"""Seconds; what is waited for takes far less."""

STOPS = pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGKILL, -9)], ids=["TERM", "INT", "KILL"]
)


def open_session(replica: Replica, **members: object) -> str:
    status, session = replica.call("POST", SESSIONS, {"agentId": AGENT, "userId": USER, **members})
    assert status == 201
    session_id: str = session["sessionId"]
    return session_id


def read(replica: Replica, session_id: str) -> tuple[int, Any]:
    return replica.call("GET", f"{SESSIONS}/{session_id}")


def statuses_until(replica: Replica, path: str, status: int) -> set[int]:
    """What is answered at a path until it is this status, that included."""
    statuses: set[int] = set()
    latest = time.monotonic() + SOON
    while status not in statuses:
        assert time.monotonic() < latest, statuses
        statuses.add(replica.call("GET", path)[0])
    return statuses


def process_of_the_server(data_dir: Path) -> int:
    """The id of the embedded server's process."""
    with redis_py.Redis.from_url(f"unix://{data_dir}/valkey.sock") as client:
        process: int = client.info("server")["process_id"]
        return process


@contextmanager
def ended(process: int) -> Iterator[None]:
    """The process has ended, or does so soon after this."""
    watched = os.pidfd_open(process)
    try:
        yield
        readable, _, _ = select.select([watched], [], [], SOON)
        assert readable, f"{process} still runs"
    finally:
        os.close(watched)


# With a server of its own


@STOPS
def test_its_sessions_outlast_it(
    start_replica: StartReplica, data_dir: Path, number: signal.Signals, code: int
) -> None:
    first = start_replica(SESSION_DATA_DIR=str(data_dir))
    session_id = open_session(first, metadata={"channel": "web"})
    _, before = read(first, session_id)

    first.signal(number)
    assert first.wait() == code
    status, after = read(start_replica(SESSION_DATA_DIR=str(data_dir)), session_id)

    assert status == 200
    assert {**after, "timeRemaining": 0} == {**before, "timeRemaining": 0}


@STOPS
def test_a_session_whose_time_came_meanwhile_has_expired(
    start_replica: StartReplica, data_dir: Path, number: signal.Signals, code: int
) -> None:
    first = start_replica(SESSION_DATA_DIR=str(data_dir), **BRIEF)
    session_id = open_session(first, timeoutConfig={"timeoutMinutes": 0.001})

    first.signal(number)
    assert first.wait() == code
    status, refusal = read(start_replica(SESSION_DATA_DIR=str(data_dir), **BRIEF), session_id)

    assert (status, refusal["details"]["reason"]) == (410, "inactivity")


@STOPS
def test_its_server_ends_with_it(
    start_replica: StartReplica, data_dir: Path, number: signal.Signals, code: int
) -> None:
    replica = start_replica(SESSION_DATA_DIR=str(data_dir))

    with ended(process_of_the_server(data_dir)):
        replica.signal(number)
        assert replica.wait() == code


def test_a_terminal_that_interrupts_it_does_not_reach_its_server(start_replica: StartReplica, data_dir: Path) -> None:
    replica = start_replica(SESSION_DATA_DIR=str(data_dir))

    assert os.getsid(process_of_the_server(data_dir)) != os.getsid(replica.pid)
    assert os.getpgid(process_of_the_server(data_dir)) != os.getpgid(replica.pid)


def test_a_second_one_on_the_same_data_is_refused_in_one_line(start_replica: StartReplica, data_dir: Path) -> None:
    first = start_replica(SESSION_DATA_DIR=str(data_dir))
    session_id = open_session(first)

    second = start_replica(SESSION_DATA_DIR=str(data_dir))

    assert second.wait() == 1
    assert second.banner == (
        f"SESSION_DATA_DIR={data_dir}: another service uses this data; stop it or choose another directory.\n"
    )
    assert read(first, session_id)[0] == 200


def test_a_server_that_was_killed_is_started_again(start_replica: StartReplica, data_dir: Path) -> None:
    replica = start_replica(SESSION_DATA_DIR=str(data_dir))
    session_id = open_session(replica)

    with ended(process_of_the_server(data_dir)):
        os.kill(process_of_the_server(data_dir), signal.SIGKILL)
    statuses = statuses_until(replica, f"{SESSIONS}/{session_id}", 200)

    assert statuses <= {200, 503}
    assert replica.call("POST", f"{SESSIONS}/{session_id}/heartbeat")[0] == 200


def test_a_server_is_started_again_as_often_as_it_takes(start_replica: StartReplica, data_dir: Path) -> None:
    replica = start_replica(SESSION_DATA_DIR=str(data_dir))
    os.kill(process_of_the_server(data_dir), signal.SIGKILL)
    statuses_until(replica, "/readyz", 503)
    statuses_until(replica, "/readyz", 200)

    os.kill(process_of_the_server(data_dir), signal.SIGKILL)

    assert statuses_until(replica, "/readyz", 503) <= {200, 503}
    assert statuses_until(replica, "/readyz", 200) <= {200, 503}


def test_its_data_is_nobody_elses(start_replica: StartReplica, data_dir: Path) -> None:
    folder = data_dir / "made" / "anew"

    start_replica(SESSION_DATA_DIR=str(folder))

    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "valkey.sock").stat().st_mode & 0o077 == 0


# On a Redis that others share


def test_what_one_replica_opens_the_other_knows(redis_server: RedisServer, start_replica: StartReplica) -> None:
    one, other = start_replica(REDIS_URL=redis_server.url), start_replica(REDIS_URL=redis_server.url)
    session_id = open_session(one)

    status, renewed = other.call("POST", f"{SESSIONS}/{session_id}/renew")

    assert (status, renewed["renewalCount"]) == (200, 1)
    assert read(one, session_id)[1]["renewalCount"] == 1


def test_an_expired_session_has_expired_on_both_again_and_again(
    redis_server: RedisServer, start_replica: StartReplica
) -> None:
    settings = {"REDIS_URL": redis_server.url, **BRIEF}
    one, other = start_replica(**settings), start_replica(**settings)
    session_id = open_session(one, timeoutConfig={"timeoutMinutes": 0.001})

    statuses_until(one, f"{SESSIONS}/{session_id}", 410)

    assert [read(replica, session_id)[0] for replica in (one, other, one, other)] == [410, 410, 410, 410]


def test_a_deleted_session_is_unknown_to_both(redis_server: RedisServer, start_replica: StartReplica) -> None:
    one, other = start_replica(REDIS_URL=redis_server.url), start_replica(REDIS_URL=redis_server.url)
    session_id = open_session(one)

    status, _ = other.call("DELETE", f"{SESSIONS}/{session_id}")

    assert status == 200
    assert [read(replica, session_id)[0] for replica in (one, other)] == [404, 404]


def test_replicas_with_different_prefixes_know_nothing_of_each_other(
    redis_server: RedisServer, start_replica: StartReplica
) -> None:
    one = start_replica(REDIS_URL=redis_server.url, SESSION_KEY_PREFIX="one:")
    other = start_replica(REDIS_URL=redis_server.url, SESSION_KEY_PREFIX="other:")

    session_id = open_session(one)

    assert [read(replica, session_id)[0] for replica in (one, other)] == [200, 404]


@pytest.fixture
def own_redis(data_dir: Path) -> Iterator[RedisServer]:
    """A server that a test starts when it likes, and may ill-treat."""
    server = RedisServer(data_dir)
    yield server
    server.stop()


def test_it_may_be_started_before_its_redis(own_redis: RedisServer, start_replica: StartReplica) -> None:
    replica = start_replica(REDIS_URL=own_redis.url)
    early = replica.call("POST", SESSIONS, {"agentId": AGENT, "userId": USER})[0], replica.call("GET", "/readyz")[0]

    own_redis.start()

    assert early == (503, 503)
    assert replica.call("GET", "/readyz")[0] == 200
    assert read(replica, open_session(replica))[0] == 200


# Stopping


def test_what_is_in_flight_is_finished_before_it_stops(own_redis: RedisServer, start_replica: StartReplica) -> None:
    own_redis.start()
    replica = start_replica(REDIS_URL=own_redis.url, SESSION_STORE_TIMEOUT_SECONDS="20")
    session_id = open_session(replica)

    own_redis.pause()
    with sent(replica, "POST", f"{SESSIONS}/{session_id}/heartbeat") as connection:
        replica.signal(signal.SIGTERM)
        until_refused(replica)
        assert select.select([connection.sock], [], [], 0.3)[0] == []
        own_redis.resume()
        response = connection.getresponse()
        session = json.loads(response.read())

    assert (response.status, session["renewalCount"]) == (200, 1)
    assert replica.wait() == 0


def test_what_is_cut_off_when_it_stops_is_told_of(own_redis: RedisServer, start_replica: StartReplica) -> None:
    own_redis.start()
    replica = start_replica(
        REDIS_URL=own_redis.url, SESSION_STORE_TIMEOUT_SECONDS="20", SESSION_DRAIN_TIMEOUT_SECONDS="0.2"
    )
    path = f"{SESSIONS}/{open_session(replica)}/heartbeat"

    own_redis.pause()
    with sent(replica, "POST", path):
        replica.signal(signal.SIGTERM)
        assert replica.wait() == 0

    line = json.loads(next(line for line in replica.banner.splitlines() if '"status":499' in line))
    assert (line["level"], line["method"], line["event"]) == ("warning", "POST", "request")
    assert line["ms"] > 0


@contextmanager
def sent(replica: Replica, method: str, path: str) -> Iterator[http.client.HTTPConnection]:
    """A request that the replica is busy with."""
    address = urlsplit(replica.url)
    assert address.hostname is not None
    with closing(http.client.HTTPConnection(address.hostname, address.port, timeout=SOON)) as connection:
        connection.request(method, path)
        replica.call("GET", "/livez")
        yield connection


def until_refused(replica: Replica) -> None:
    """Wait until no new connection is accepted."""
    latest = time.monotonic() + SOON
    while accepts_connections(replica):
        assert time.monotonic() < latest


def accepts_connections(replica: Replica) -> bool:
    address = urlsplit(replica.url)
    try:
        socket.create_connection((address.hostname, address.port), timeout=SOON).close()
    except ConnectionError:
        return False
    return True


def test_a_client_that_keeps_its_connection_does_not_hold_it_up(
    redis_server: RedisServer, start_replica: StartReplica
) -> None:
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_DRAIN_TIMEOUT_SECONDS="600")
    address = urlsplit(replica.url)
    assert address.hostname is not None

    with closing(http.client.HTTPConnection(address.hostname, address.port, timeout=SOON)) as connection:
        connection.request("GET", "/livez")
        connection.getresponse().read()
        replica.signal(signal.SIGTERM)

        assert replica.wait() == 0


@pytest.mark.parametrize("seconds", ["0", "0.2"])
def test_a_client_that_never_finishes_does_not_hold_it_up(start_replica: StartReplica, seconds: str) -> None:
    replica = start_replica(SESSION_DRAIN_TIMEOUT_SECONDS=seconds, **NOWHERE)
    address = urlsplit(replica.url)
    request = f"POST {SESSIONS} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"

    with socket.create_connection((address.hostname, address.port), timeout=SOON) as connection:
        connection.sendall(f"{request}Expect: 100-continue\r\nContent-Length: 9\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 Continue")
        replica.signal(signal.SIGTERM)

        assert replica.wait() == 0


def test_it_stops_though_redis_does_not_answer(own_redis: RedisServer, start_replica: StartReplica) -> None:
    own_redis.start()
    replica = start_replica(REDIS_URL=own_redis.url)
    own_redis.pause()

    replica.signal(signal.SIGTERM)

    assert replica.wait() == 0


# Wrong settings stop the start


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"SESSION_DEFAULT_TIMEOUT_MINUTES": "4"},
            "SESSION_DEFAULT_TIMEOUT_MINUTES must be between 5 and 1440",
        ),
        ({"SESSION_MAX_TIMEOUT_MINUTES": "nonsense"}, "SESSION_MAX_TIMEOUT_MINUTES must be a number (got nonsense)"),
        ({"SESSION_KEY_PREFIX": "{a}"}, "SESSION_KEY_PREFIX must not contain braces"),
        ({"PORT": "70000"}, "PORT must be between 0 and 65535 (got 70000)"),
        ({"HOST": "203.0.113.1", "SESSION_ALLOW_ANONYMOUS": "true"}, "HOST=203.0.113.1 PORT=0: "),
        ({"REDIS_URL": "http://h"}, "REDIS_URL must start with one of redis://"),
        ({"REDIS_URL": "redis://h:nonsense"}, "REDIS_URL"),
        ({"REDIS_URL": "redis://h:99999"}, "REDIS_URL: "),
        ({"REDIS_URL": "redis://h?socket_timeout=soon"}, "REDIS_URL: "),
        ({"REDIS_URL": "redis://h?nonsense=1"}, "REDIS_URL: "),
        ({"REDIS_URL": "rediss://h?ssl_cert_reqs=bogus"}, "REDIS_URL: "),
        ({"REDIS_URL": "redis://h/nonsense"}, "REDIS_URL must have a database number as its path"),
        ({"REDIS_URL": "redis://[::1"}, "REDIS_URL: "),
        ({"REDIS_URL": ""}, "REDIS_URL must not be empty. Unset it to use the embedded server"),
    ],
    ids=str,
)
def test_a_wrong_setting_stops_the_start_in_one_line(
    start_replica: StartReplica, settings: dict[str, str], said: str
) -> None:
    replica = start_replica(**NOWHERE | settings)

    assert replica.wait() == 1
    assert said in replica.banner
    assert replica.banner.count("\n") == 1


@pytest.mark.parametrize(
    ("data_dir", "said"),
    [
        ("/dev/null/data", "SESSION_DATA_DIR=/dev/null/data: cannot be created: Not a directory"),
        ("/dev/null", "SESSION_DATA_DIR=/dev/null: cannot be created: File exists"),
        ("/tmp/" + "a" * 100, "must be shorter"),
    ],
)
def test_a_data_dir_that_cannot_be_used_stops_the_start_in_one_line(
    start_replica: StartReplica, data_dir: str, said: str
) -> None:
    replica = start_replica(SESSION_DATA_DIR=data_dir)

    assert replica.wait() == 1
    assert said in replica.banner
    assert replica.banner.count("\n") == 1


def test_a_port_in_use_stops_the_start_in_one_line(start_replica: StartReplica) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        replica = start_replica(PORT=str(port), **NOWHERE)

    assert replica.wait() == 1
    assert replica.banner.startswith(f"HOST=127.0.0.1 PORT={port}: ")
    assert replica.banner.lower().endswith("address already in use\n")
    assert replica.banner.count("\n") == 1


def test_a_start_that_is_stopped_leaves_no_server_behind(start_replica: StartReplica, data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        start_replica(PORT=str(listener.getsockname()[1]), SESSION_DATA_DIR=str(data_dir)).wait()

    with pytest.raises(redis_py.ConnectionError):
        process_of_the_server(data_dir)


def test_a_data_dir_that_cannot_be_locked_stops_the_start_in_one_line(
    start_replica: StartReplica, data_dir: Path
) -> None:
    (data_dir / "lock").mkdir()

    replica = start_replica(SESSION_DATA_DIR=str(data_dir))

    assert replica.wait() == 1
    assert replica.banner.startswith(f"SESSION_DATA_DIR={data_dir}: ")
    assert replica.banner.count("\n") == 1


def test_data_that_cannot_be_read_stops_the_start_in_one_line(start_replica: StartReplica, data_dir: Path) -> None:
    (data_dir / "appendonlydir").mkdir()
    (data_dir / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense")

    replica = start_replica(SESSION_DATA_DIR=str(data_dir))

    assert replica.wait() == 1
    assert replica.banner == f"The embedded server did not start; see {data_dir}/valkey.log.\n"


def test_a_variable_that_no_knob_reads_is_a_warning(start_replica: StartReplica) -> None:
    replica = start_replica(SESSION_TIMEOUT="5", **NOWHERE)

    assert '"level":"warning"' in replica.line_with("SESSION_TIMEOUT is not a setting of this service")
    assert replica.call("GET", "/livez")[0] == 200


# What it says


def test_the_banner_says_how_to_look_inside_the_embedded_server(start_replica: StartReplica, data_dir: Path) -> None:
    replica = start_replica(SESSION_DATA_DIR=str(data_dir))

    assert f"look inside    redis-cli -s {data_dir}/valkey.sock\n" in replica.banner
    assert process_of_the_server(data_dir) > 0


@pytest.mark.parametrize(
    ("url", "command"),
    [
        ("redis://127.0.0.1:1/3", "redis-cli -h 127.0.0.1 -p 1 -n 3"),
        ("redis://:hunter2@127.0.0.1:1", "redis-cli -h 127.0.0.1 -p 1"),
        ("redis://user:hunter2@127.0.0.1:1/3", "redis-cli -h 127.0.0.1 -p 1 --user user -n 3"),
        ("redis://127.0.0.1:1?password=hunter2&db=3", "redis-cli -h 127.0.0.1 -p 1 -n 3"),
        ("rediss://user:hunter2@127.0.0.1:1", "redis-cli -h 127.0.0.1 -p 1 --tls --user user"),
        ("unix://user:hunter2@/nowhere/redis.sock?db=3", "redis-cli -s /nowhere/redis.sock --user user -n 3"),
    ],
)
def test_the_banner_says_how_to_look_inside_another_redis(start_replica: StartReplica, url: str, command: str) -> None:
    replica = start_replica(REDIS_URL=url)

    assert f"look inside    {command}\n" in replica.banner


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hunter2@127.0.0.1:1/0",
        "redis://127.0.0.1:1/0?password=hunter2",
        "unix://user:hunter2@/nowhere/redis.sock",
    ],
)
def test_a_password_is_nowhere_in_what_it_says(start_replica: StartReplica, url: str) -> None:
    replica = start_replica(REDIS_URL=url)

    _, refusal = replica.call("GET", f"{SESSIONS}/00000000-0000-4000-8000-000000000000")
    replica.stop()

    assert "Redis does not respond" in replica.banner
    assert "hunter2" not in replica.banner
    assert "hunter2" not in str(refusal)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@h:nonsense",
        "redis://:hunter2/rest@h",
        "redis://:hunter2#rest@h",
        "redis://h?password=hunter2&socket_timeout=soon",
    ],
)
def test_a_password_is_not_repeated_by_a_start_that_is_stopped(start_replica: StartReplica, url: str) -> None:
    replica = start_replica(REDIS_URL=url)

    assert replica.wait() == 1
    assert replica.banner.startswith("REDIS_URL")
    assert "hunter2" not in replica.banner


# What it says of trouble


def test_a_password_that_redis_does_not_take_is_told_before_anybody_asks(
    own_redis: RedisServer, start_replica: StartReplica
) -> None:
    own_redis.start()
    own_redis.command("CONFIG", "SET", "requirepass", "right")

    replica = start_replica(REDIS_URL=f"{own_redis.url}?password=wrong")
    said = replica.line_with("the check of Redis is delayed by the session store")

    assert "invalid username-password" in said


def test_a_redis_that_is_full_is_told_once(own_redis: RedisServer, start_replica: StartReplica) -> None:
    own_redis.start()
    replica = start_replica(REDIS_URL=own_redis.url)
    open_session(replica)
    own_redis.command("CONFIG", "SET", "maxmemory", 1)

    statuses = [replica.call("POST", SESSIONS, {"agentId": AGENT, "userId": USER})[0] for _ in range(3)]
    replica.stop()

    assert statuses == [503, 503, 503]
    assert replica.banner.count("Redis rejects commands") == 1


# Told to stop


def test_while_it_pauses_before_its_end_it_serves_and_is_not_ready(start_replica: StartReplica, data_dir: Path) -> None:
    replica = start_replica(SESSION_DATA_DIR=str(data_dir), SESSION_DRAIN_PAUSE_SECONDS="1")
    session_id = open_session(replica)

    replica.signal(signal.SIGTERM)
    replica.line_with("stopping")
    ready, _ = replica.call("GET", "/readyz")
    found, _ = read(replica, session_id)

    assert (ready, found) == (503, 200)
    assert replica.wait() == 0


def test_a_user_without_a_password_is_that_user_on_every_connection(
    own_redis: RedisServer, start_replica: StartReplica
) -> None:
    own_redis.start()
    own_redis.command("ACL", "SETUSER", "chat", "on", "nopass", "allkeys", "allcommands")
    replica = start_replica(REDIS_URL=own_redis.url.replace("unix://", "unix://chat@"))
    open_session(replica)

    with redis_py.Redis.from_url(own_redis.admin_url) as client:
        users = {connection["user"] for connection in client.client_list() if connection["name"] == "session-service"}

    assert users == {"chat"}
