"""Tests the service as a process: replicas on one Redis, drain, startup errors, banner."""

import http.client
import json
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis as redis_py

from tests.conftest import AGENT, USER, StartReplica
from tests.process.service_calls import (
    NO_REDIS,
    WAIT_SECONDS,
    create_session,
    get_session,
    statuses_until,
    wait_until_refused,
)
from tests.redis_server import RedisServer
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

SHORT_TIMEOUTS = {"SESSION_MIN_TIMEOUT_MINUTES": "0.001"}


# Replicas on one Redis


def test_replicas_share_their_sessions(redis_server: RedisServer, start_replica: StartReplica) -> None:
    first, second = start_replica(REDIS_URL=redis_server.url), start_replica(REDIS_URL=redis_server.url)
    session_id = create_session(first)

    status, renewed = second.call("POST", f"{SESSIONS}/{session_id}/renew")

    assert (status, renewed["renewalCount"]) == (200, 1)
    assert get_session(first, session_id)[1]["renewalCount"] == 1


def test_a_session_expires_on_all_replicas(redis_server: RedisServer, start_replica: StartReplica) -> None:
    settings = {"REDIS_URL": redis_server.url, **SHORT_TIMEOUTS}
    first, second = start_replica(**settings), start_replica(**settings)
    session_id = create_session(first, timeoutConfig={"timeoutMinutes": 0.001})

    statuses_until(first, f"{SESSIONS}/{session_id}", 410)

    assert [get_session(replica, session_id)[0] for replica in (first, second, first, second)] == [410, 410, 410, 410]


def test_a_deleted_session_is_missing_on_all_replicas(redis_server: RedisServer, start_replica: StartReplica) -> None:
    first, second = start_replica(REDIS_URL=redis_server.url), start_replica(REDIS_URL=redis_server.url)
    session_id = create_session(first)

    status, _ = second.call("DELETE", f"{SESSIONS}/{session_id}")

    assert status == 200
    assert [get_session(replica, session_id)[0] for replica in (first, second)] == [404, 404]


def test_replicas_with_different_key_prefixes_share_nothing(
    redis_server: RedisServer, start_replica: StartReplica
) -> None:
    first = start_replica(REDIS_URL=redis_server.url, SESSION_KEY_PREFIX="one:")
    second = start_replica(REDIS_URL=redis_server.url, SESSION_KEY_PREFIX="other:")

    session_id = create_session(first)

    assert [get_session(replica, session_id)[0] for replica in (first, second)] == [200, 404]


def test_the_service_starts_before_its_redis(own_redis: RedisServer, start_replica: StartReplica) -> None:
    replica = start_replica(REDIS_URL=own_redis.url)
    early = replica.call("POST", SESSIONS, {"agentId": AGENT, "userId": USER})[0], replica.call("GET", "/readyz")[0]

    own_redis.start()

    assert early == (503, 503)
    assert replica.call("GET", "/readyz")[0] == 200
    assert get_session(replica, create_session(replica))[0] == 200


# Drain


def test_during_the_drain_pause_the_service_is_unready_but_still_responds(
    start_replica: StartReplica, data_dir: Path
) -> None:
    replica = start_replica(SESSION_DATA_DIR=str(data_dir), SESSION_DRAIN_PAUSE_SECONDS="1")
    session_id = create_session(replica)

    replica.signal(signal.SIGTERM)
    replica.wait_for_line("stopping")
    ready, _ = replica.call("GET", "/readyz")
    found, _ = get_session(replica, session_id)

    assert (ready, found) == (503, 200)
    assert replica.wait() == 0


def test_requests_in_flight_are_finished(own_redis: RedisServer, start_replica: StartReplica) -> None:
    own_redis.start()
    replica = start_replica(REDIS_URL=own_redis.url, SESSION_STORE_TIMEOUT_SECONDS="20")
    session_id = create_session(replica)

    own_redis.pause()
    with request_in_flight(replica, "POST", f"{SESSIONS}/{session_id}/heartbeat") as connection:
        replica.signal(signal.SIGTERM)
        wait_until_refused(replica)
        assert select.select([connection.sock], [], [], 0.3)[0] == []
        own_redis.resume()
        response = connection.getresponse()
        session = json.loads(response.read())

    assert (response.status, session["renewalCount"]) == (200, 1)
    assert replica.wait() == 0


def test_a_request_that_exceeds_the_drain_timeout_is_logged(
    own_redis: RedisServer, start_replica: StartReplica
) -> None:
    own_redis.start()
    replica = start_replica(
        REDIS_URL=own_redis.url, SESSION_STORE_TIMEOUT_SECONDS="20", SESSION_DRAIN_TIMEOUT_SECONDS="0.2"
    )
    path = f"{SESSIONS}/{create_session(replica)}/heartbeat"

    own_redis.pause()
    with request_in_flight(replica, "POST", path):
        replica.signal(signal.SIGTERM)
        assert replica.wait() == 0

    line = json.loads(next(line for line in replica.output.splitlines() if '"status":499' in line))
    assert (line["level"], line["method"], line["event"]) == ("warning", "POST", "request")
    assert line["ms"] > 0


@contextmanager
def request_in_flight(replica: Replica, method: str, path: str) -> Iterator[http.client.HTTPConnection]:
    """Send a request and wait until the replica has read it."""
    address = urlsplit(replica.url)
    assert address.hostname is not None
    with closing(http.client.HTTPConnection(address.hostname, address.port, timeout=WAIT_SECONDS)) as connection:
        connection.request(method, path)
        replica.call("GET", "/livez")
        yield connection


def test_an_idle_connection_does_not_delay_the_exit(redis_server: RedisServer, start_replica: StartReplica) -> None:
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_DRAIN_TIMEOUT_SECONDS="600")
    address = urlsplit(replica.url)
    assert address.hostname is not None

    with closing(http.client.HTTPConnection(address.hostname, address.port, timeout=WAIT_SECONDS)) as connection:
        connection.request("GET", "/livez")
        connection.getresponse().read()
        replica.signal(signal.SIGTERM)

        assert replica.wait() == 0


@pytest.mark.parametrize("seconds", ["0", "0.2"])
def test_an_incomplete_request_does_not_delay_the_exit(start_replica: StartReplica, seconds: str) -> None:
    replica = start_replica(SESSION_DRAIN_TIMEOUT_SECONDS=seconds, **NO_REDIS)
    address = urlsplit(replica.url)
    request = f"POST {SESSIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"

    with socket.create_connection((address.hostname, address.port), timeout=WAIT_SECONDS) as connection:
        connection.sendall(f"{request}Expect: 100-continue\r\nContent-Length: 9\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 Continue")
        replica.signal(signal.SIGTERM)

        assert replica.wait() == 0


def test_the_service_stops_without_a_response_of_redis(own_redis: RedisServer, start_replica: StartReplica) -> None:
    own_redis.start()
    replica = start_replica(REDIS_URL=own_redis.url)
    own_redis.pause()

    replica.signal(signal.SIGTERM)

    assert replica.wait() == 0


# Startup errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"SESSION_DEFAULT_TIMEOUT_MINUTES": "4"}, "SESSION_DEFAULT_TIMEOUT_MINUTES must be between 5 and 1440"),
        ({"HOST": "203.0.113.1", "SESSION_ALLOW_ANONYMOUS": "true"}, "HOST=203.0.113.1 PORT=0: "),
        ({"REDIS_URL": "redis://:hunter2@h:nonsense"}, "REDIS_URL: the URL is not valid"),
    ],
    ids=str,
)
def test_a_wrong_setting_ends_the_start_with_one_line(
    start_replica: StartReplica, settings: dict[str, str], message: str
) -> None:
    replica = start_replica(**NO_REDIS | settings)

    assert replica.wait() == 1
    assert replica.output.startswith(message)
    assert replica.output.count("\n") == 1
    assert "hunter2" not in replica.output


def test_a_host_without_an_address_does_not_suggest_anonymous_access(start_replica: StartReplica) -> None:
    replica = start_replica(**NO_REDIS, HOST="x86_64-conda-linux-gnu")

    assert replica.wait() == 1
    assert replica.output.startswith("HOST=x86_64-conda-linux-gnu: ")
    assert "unset HOST" in replica.output
    assert "SESSION_ALLOW_ANONYMOUS" not in replica.output


def test_a_used_port_ends_the_start_with_one_line(start_replica: StartReplica) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        replica = start_replica(PORT=str(port), **NO_REDIS)

    assert replica.wait() == 1
    assert replica.output.startswith(f"HOST=127.0.0.1 PORT={port}: ")
    assert replica.output.lower().endswith("address already in use\n")
    assert replica.output.count("\n") == 1


def test_an_unknown_setting_is_logged_as_a_warning(start_replica: StartReplica) -> None:
    replica = start_replica(SESSION_TIMEOUT="5", **NO_REDIS)

    assert '"level":"warning"' in replica.wait_for_line("SESSION_TIMEOUT is not a setting of this service")
    assert replica.call("GET", "/livez")[0] == 200


# Banner and passwords


def test_the_banner_shows_how_to_open_redis_cli(start_replica: StartReplica) -> None:
    replica = start_replica(REDIS_URL="redis://user:hunter2@127.0.0.1:1/3")

    assert "look inside    redis-cli -h 127.0.0.1 -p 1 --user user -n 3\n" in replica.output


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hunter2@127.0.0.1:1/0",
        "redis://127.0.0.1:1/0?password=hunter2",
        "unix://user:hunter2@/nowhere/redis.sock",
    ],
)
def test_the_output_contains_no_password(start_replica: StartReplica, url: str) -> None:
    replica = start_replica(REDIS_URL=url)

    _, error = replica.call("GET", f"{SESSIONS}/00000000-0000-4000-8000-000000000000")
    replica.stop()

    assert "Redis does not respond" in replica.output
    assert "hunter2" not in replica.output
    assert "hunter2" not in str(error)


# Problems with Redis


def test_a_wrong_password_is_logged_before_the_first_request(
    own_redis: RedisServer, start_replica: StartReplica
) -> None:
    own_redis.start()
    own_redis.command("CONFIG", "SET", "requirepass", "right")

    replica = start_replica(REDIS_URL=f"{own_redis.url}?password=wrong")
    line = replica.wait_for_line("the check of Redis is delayed by the session store")

    assert "invalid username-password" in line


def test_a_full_redis_is_logged_once(own_redis: RedisServer, start_replica: StartReplica) -> None:
    own_redis.start()
    replica = start_replica(REDIS_URL=own_redis.url)
    create_session(replica)
    own_redis.command("CONFIG", "SET", "maxmemory", 1)

    statuses = [replica.call("POST", SESSIONS, {"agentId": AGENT, "userId": USER})[0] for _ in range(3)]
    replica.stop()

    assert statuses == [503, 503, 503]
    assert replica.output.count("Redis rejects commands") == 1


def test_every_connection_uses_the_user_of_the_url(own_redis: RedisServer, start_replica: StartReplica) -> None:
    own_redis.start()
    own_redis.command("ACL", "SETUSER", "chat", "on", "nopass", "allkeys", "allcommands")
    replica = start_replica(REDIS_URL=own_redis.url.replace("unix://", "unix://chat@"))
    create_session(replica)

    with redis_py.Redis.from_url(own_redis.admin_url) as client:
        users = {connection["user"] for connection in client.client_list() if connection["name"] == "session-service"}

    assert users == {"chat"}
