"""Tests the embedded server: its data, its restarts, its end."""

import asyncio
import os
import signal
import socket
from pathlib import Path
from unittest.mock import AsyncMock, Mock

import pytest
import redis as redis_py

from service.errors import StartupError
from service.process.embedded_server import EmbeddedServer, repair_append_only_file
from tests.conftest import StartReplica
from tests.process.service_calls import (
    NO_REDIS,
    create_session,
    embedded_server_process,
    exited,
    get_session,
    statuses_until,
)
from tests.test_walkthrough import SESSIONS

SHORT_TIMEOUTS = {"SESSION_MIN_TIMEOUT_MINUTES": "0.001"}

WITH_EACH_SIGNAL = pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGKILL, -9)], ids=["TERM", "INT", "KILL"]
)


@WITH_EACH_SIGNAL
def test_sessions_survive_a_restart_of_the_service(
    start_replica: StartReplica, data_dir: Path, number: signal.Signals, code: int
) -> None:
    first = start_replica(SESSION_DATA_DIR=str(data_dir))
    session_id = create_session(first, metadata={"channel": "web"})
    _, before = get_session(first, session_id)

    first.signal(number)
    assert first.wait() == code
    status, after = get_session(start_replica(SESSION_DATA_DIR=str(data_dir)), session_id)

    assert status == 200
    assert {**after, "timeRemaining": 0} == {**before, "timeRemaining": 0}


@WITH_EACH_SIGNAL
def test_sessions_expire_while_the_service_is_stopped(
    start_replica: StartReplica, data_dir: Path, number: signal.Signals, code: int
) -> None:
    first = start_replica(SESSION_DATA_DIR=str(data_dir), **SHORT_TIMEOUTS)
    session_id = create_session(first, timeoutConfig={"timeoutMinutes": 0.001})

    first.signal(number)
    assert first.wait() == code
    status, error = get_session(start_replica(SESSION_DATA_DIR=str(data_dir), **SHORT_TIMEOUTS), session_id)

    assert (status, error["details"]["reason"]) == (410, "inactivity")


@WITH_EACH_SIGNAL
def test_the_server_exits_with_the_service(
    start_replica: StartReplica, data_dir: Path, number: signal.Signals, code: int
) -> None:
    replica = start_replica(SESSION_DATA_DIR=str(data_dir))

    with exited(embedded_server_process(data_dir)):
        replica.signal(number)
        assert replica.wait() == code


def test_ctrl_c_on_the_terminal_does_not_reach_the_server(start_replica: StartReplica, data_dir: Path) -> None:
    replica = start_replica(SESSION_DATA_DIR=str(data_dir))

    assert os.getsid(embedded_server_process(data_dir)) != os.getsid(replica.pid)
    assert os.getpgid(embedded_server_process(data_dir)) != os.getpgid(replica.pid)


def test_a_second_service_cannot_use_the_same_data(start_replica: StartReplica, data_dir: Path) -> None:
    first = start_replica(SESSION_DATA_DIR=str(data_dir))
    session_id = create_session(first)

    second = start_replica(SESSION_DATA_DIR=str(data_dir))

    assert second.wait() == 1
    assert second.output == (
        f"SESSION_DATA_DIR={data_dir} is in use by another service. Stop that service or choose another directory.\n"
    )
    assert get_session(first, session_id)[0] == 200


def test_a_killed_server_is_restarted_without_losing_sessions(start_replica: StartReplica, data_dir: Path) -> None:
    replica = start_replica(SESSION_DATA_DIR=str(data_dir))
    session_id = create_session(replica)

    with exited(embedded_server_process(data_dir)):
        os.kill(embedded_server_process(data_dir), signal.SIGKILL)
    statuses = statuses_until(replica, f"{SESSIONS}/{session_id}", 200)

    assert statuses <= {200, 503}
    assert replica.call("POST", f"{SESSIONS}/{session_id}/heartbeat")[0] == 200


def test_a_server_is_restarted_each_time_it_is_killed(start_replica: StartReplica, data_dir: Path) -> None:
    replica = start_replica(SESSION_DATA_DIR=str(data_dir))
    os.kill(embedded_server_process(data_dir), signal.SIGKILL)
    statuses_until(replica, "/readyz", 503)
    statuses_until(replica, "/readyz", 200)

    os.kill(embedded_server_process(data_dir), signal.SIGKILL)

    assert statuses_until(replica, "/readyz", 503) <= {200, 503}
    assert statuses_until(replica, "/readyz", 200) <= {200, 503}


def test_only_the_owner_can_read_the_data(start_replica: StartReplica, data_dir: Path) -> None:
    folder = data_dir / "new" / "folder"

    start_replica(SESSION_DATA_DIR=str(folder))

    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "valkey.sock").stat().st_mode & 0o077 == 0


def test_the_banner_shows_how_to_open_redis_cli(start_replica: StartReplica, data_dir: Path) -> None:
    replica = start_replica(SESSION_DATA_DIR=str(data_dir))

    assert f"look inside    redis-cli -s {data_dir}/valkey.sock\n" in replica.output


# Startup errors


@pytest.mark.parametrize(
    ("data_dir", "message"),
    [
        ("/dev/null/data", "SESSION_DATA_DIR=/dev/null/data cannot be created: Not a directory"),
        ("/dev/null", "SESSION_DATA_DIR=/dev/null cannot be created: File exists"),
        ("/tmp/" + "a" * 100, "must be shorter"),
    ],
)
def test_an_unusable_data_directory_ends_the_start_with_one_line(
    start_replica: StartReplica, data_dir: str, message: str
) -> None:
    replica = start_replica(SESSION_DATA_DIR=data_dir)

    assert replica.wait() == 1
    assert message in replica.output
    assert replica.output.count("\n") == 1


def test_a_data_directory_without_a_lock_ends_the_start_with_one_line(
    start_replica: StartReplica, data_dir: Path
) -> None:
    (data_dir / "lock").mkdir()

    replica = start_replica(SESSION_DATA_DIR=str(data_dir))

    assert replica.wait() == 1
    assert replica.output.startswith(f"SESSION_DATA_DIR={data_dir} cannot be locked: ")
    assert replica.output.count("\n") == 1


def test_unreadable_data_ends_the_start_with_one_line(start_replica: StartReplica, data_dir: Path) -> None:
    (data_dir / "appendonlydir").mkdir()
    (data_dir / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense")

    replica = start_replica(SESSION_DATA_DIR=str(data_dir))

    assert replica.wait() == 1
    assert replica.output.startswith(f"The embedded server did not start; see {data_dir}/valkey.log. ")


def test_a_failed_start_leaves_no_server_running(start_replica: StartReplica, data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        start_replica(PORT=str(listener.getsockname()[1]), SESSION_DATA_DIR=str(data_dir)).wait()

    with pytest.raises(redis_py.ConnectionError):
        embedded_server_process(data_dir)


def test_a_service_with_a_redis_url_uses_no_data_directory(start_replica: StartReplica, data_dir: Path) -> None:
    start_replica(SESSION_DATA_DIR=str(data_dir), **NO_REDIS)

    assert list(data_dir.iterdir()) == []


def damaged_by_a_power_failure(start_replica: StartReplica, data_dir: Path) -> str:
    """Leave data whose append-only file ends in zeros, and return the id of a session in it."""
    replica = start_replica(SESSION_DATA_DIR=str(data_dir))
    session_id = create_session(replica)
    replica.signal(signal.SIGTERM)
    replica.wait()
    (file,) = (data_dir / "appendonlydir").glob("*.incr.aof")
    with file.open("ab") as end:
        end.write(bytes(512))
    return session_id


def test_the_service_does_not_start_on_a_damaged_append_only_file(start_replica: StartReplica, data_dir: Path) -> None:
    damaged_by_a_power_failure(start_replica, data_dir)

    replica = start_replica(SESSION_DATA_DIR=str(data_dir))

    assert replica.wait() == 1
    assert "`python -m service repair`" in replica.output
    assert "listening" not in replica.output


async def test_a_damaged_append_only_file_is_repaired(start_replica: StartReplica, data_dir: Path) -> None:
    session_id = damaged_by_a_power_failure(start_replica, data_dir)

    copy = await repair_append_only_file(data_dir)

    assert (copy / "appendonly.aof.manifest").exists()
    assert get_session(start_replica(SESSION_DATA_DIR=str(data_dir)), session_id)[0] == 200


async def test_the_data_of_a_running_server_is_not_repaired(start_replica: StartReplica, data_dir: Path) -> None:
    start_replica(SESSION_DATA_DIR=str(data_dir))

    with pytest.raises(StartupError, match="is in use by another service"):
        await repair_append_only_file(data_dir)


async def test_pauses_between_restarts_grow(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, pauses = EmbeddedServer(data_dir), list[float]()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 10:
            raise asyncio.CancelledError

    monkeypatch.setattr("service.process.embedded_server.asyncio.sleep", pause)
    monkeypatch.setattr(server, "_process", Mock(wait=AsyncMock(return_value=1)))
    monkeypatch.setattr(server, "_spawn", AsyncMock(side_effect=[StartupError("damaged"), TypeError("unexpected")] * 5))

    with pytest.raises(asyncio.CancelledError):
        await server.keep_running()

    assert pauses == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]


async def test_a_server_is_not_started_while_it_loads_its_data(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replies = AsyncMock(side_effect=[b"", b"-LOADING Valkey is loading the dataset in memory\r\n", b"+PONG\r\n"])
    monkeypatch.setattr("service.process.embedded_server._reply_to_ping", replies)
    server = EmbeddedServer(data_dir)

    await server.start()

    await server.stop()
    assert replies.await_count == 3
