"""Audit records are formatted safely, and written to the destination of the settings."""

import io
import json
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TextIO
from urllib.request import urlopen

import pytest

from service.errors import StartupError, StoreUnavailable
from service.observability.audit import (
    Actor,
    AuditFile,
    AuditLog,
    FormatRecord,
    console_record,
    json_record,
    open_audit_log,
)
from service.observability.event_log import EventLog, open_event_log
from service.observability.log_writer import LogWriter
from service.observability.metrics import Metrics
from service.settings import Settings
from service.settings.observability import LogFormat, LogLevel
from service.shared_secret import SharedSecret
from tests.conftest import StartReplica
from tests.observability.audited import new_session
from tests.observability.test_log import stream
from tests.redis_server import RedisServer, wait_until
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

__all__ = ["stream"]

OPERATOR = Actor("terminal", "operator")
NO_LIMIT = resource.RLIM_INFINITY


def record_of(name: str, format_record: FormatRecord) -> str:
    """Return the record of an action by a token with this name."""
    lines: list[str] = []
    audit_log = AuditLog(SharedSecret(), format_record, lines.append, Actor("token", name))
    audit_log.record("policy.put")
    (line,) = lines
    return line


@pytest.mark.parametrize("name", ['quoted"', "grüße", "auth0|a service"])
def test_a_printable_name_is_recorded_unchanged(name: str) -> None:
    assert json.loads(record_of(name, json_record))["actor"] == f"token:{name}"


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[31mred", "\x9b31mred", "a lone surrogate: \ud800"])
@pytest.mark.parametrize("format_record", [json_record, console_record])
def test_unprintable_characters_of_a_name_are_escaped(name: str, format_record: FormatRecord) -> None:
    assert record_of(name, format_record).isprintable()


def test_a_long_name_is_cut() -> None:
    assert len(json.loads(record_of("x" * 10_000, json_record))["actor"]) == len("token:") + 200


@pytest.mark.parametrize(
    ("name", "text"),
    [("billing", "token:billing"), ("a b", '"token:a b"'), ("\x1b[31mred", r"token:\x1b[31mred")],
)
def test_a_readable_record_quotes_names_with_blanks(name: str, text: str) -> None:
    assert f" actor={text}" in record_of(name, console_record)


def test_a_readable_record_looks_like_a_log_line() -> None:
    assert "Z [audit    ] policy.put " in record_of("billing", console_record)


# Destinations


@pytest.mark.parametrize(
    ("log_format", "text"), [("json", '"log":"audit","action":"policy.put"'), ("console", "[audit")]
)
@pytest.mark.parametrize("level", ["info", "error"])
def test_records_are_written_to_the_log_at_every_level(
    stream: TextIO, log_format: LogFormat, level: LogLevel, text: str
) -> None:
    event_log = open_event_log(stream, log_format, level)

    with open_audit_log(Settings(), event_log, Metrics(), OPERATOR) as audit_log:
        assert audit_log is not None
        audit_log.record("policy.put")
    assert event_log.writer is not None
    event_log.writer.close()

    assert text in Path(stream.name).read_text()


def test_the_audit_log_can_be_off() -> None:
    with open_audit_log(Settings(session_audit_log="off"), EventLog(SharedSecret()), Metrics(), OPERATOR) as audit_log:
        assert audit_log is None


def test_records_before_a_failure_are_written(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"

    with pytest.raises(StoreUnavailable):
        record_and_fail(Settings(session_audit_log=str(file)))

    assert json.loads(file.read_text())["actor"] == "terminal:operator"


def record_and_fail(settings: Settings) -> None:
    with open_audit_log(settings, EventLog(SharedSecret()), Metrics(), OPERATOR) as audit_log:
        assert audit_log is not None
        audit_log.record("session.end", reason="revoked")
        raise StoreUnavailable("Redis failed")


@pytest.mark.parametrize(
    ("path", "error"),
    [("/", "Is a directory"), ("/dev/null", "not a regular file"), ("/nowhere/audit", "No such file")],
)
def test_a_file_that_cannot_be_opened_is_a_startup_error(path: str, error: str) -> None:
    settings = Settings(session_audit_log=path)

    with (
        pytest.raises(StartupError, match=f"^SESSION_AUDIT_LOG={path} cannot be opened: {error}"),
        open_audit_log(settings, EventLog(SharedSecret()), Metrics(), OPERATOR),
    ):
        pass


def test_workers_do_not_start_without_the_file(start_replica: StartReplica, redis_server: RedisServer) -> None:
    replica = start_replica(["--workers", "2"], REDIS_URL=redis_server.url, SESSION_AUDIT_LOG="/nowhere/audit")

    assert replica.wait() == 1
    assert "SESSION_AUDIT_LOG=/nowhere/audit cannot be opened: No such file or directory" in replica.output


# The file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


@pytest.fixture
def writer(path: Path) -> Iterator[LogWriter]:
    path.write_text("first\n")
    file = AuditFile(path)
    with closing(LogWriter(file)) as writer:
        writer.before_write = file.reopen_if_moved
        yield writer
    os.close(file.fileno())


def test_records_are_appended_to_an_existing_file(writer: LogWriter, path: Path) -> None:
    writer.write("second")
    writer.close()

    assert path.read_text() == "first\nsecond\n"


def test_a_new_file_is_created_after_the_old_one_is_moved(writer: LogWriter, path: Path) -> None:
    old = path.rename(path.with_suffix(".1"))

    writer.write("second")
    writer.close()

    assert (old.read_text(), path.read_text()) == ("first\n", "second\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_old_file_is_used_if_a_new_one_cannot_be_created(
    writer: LogWriter, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = path.rename(path.with_suffix(".1"))
    path.mkdir()

    writer.write("second")
    writer.close()

    assert old.read_text() == "first\nsecond\n"
    assert caplog.messages == ["the audit log cannot be written: Is a directory"]


@pytest.fixture
def replica(start_replica: StartReplica, redis_server: RedisServer, path: Path) -> Replica:
    return start_replica(REDIS_URL=redis_server.url, SESSION_AUDIT_LOG=str(path))


def test_requests_succeed_on_a_full_disk_and_dropped_records_are_counted(replica: Replica, path: Path) -> None:
    user_id = "00000000-0000-4000-8000-00000000000b"
    resource.prlimit(replica.pid, resource.RLIMIT_FSIZE, (0, NO_LIMIT))  # every write fails, as on a full disk

    statuses = [replica.call("POST", SESSIONS, new_session(user_id))[0] for _ in range(3)]
    error = json.loads(replica.wait_for_line("the audit log cannot be written"))
    counter = 'sessions_log_lines_dropped_total{log="audit"} 3.0'
    wait_until(lambda: counter in metrics_of(replica), "the counter of dropped records")
    resource.prlimit(replica.pid, resource.RLIMIT_FSIZE, (NO_LIMIT, NO_LIMIT))
    replica.call("POST", SESSIONS, new_session(user_id))

    assert (statuses, error["level"]) == ([201] * 3, "error")
    assert replica.wait_for_line("3 lines of the audit log were dropped")
    replica.stop()
    assert len(path.read_text().splitlines()) == 1


def metrics_of(replica: Replica) -> str:
    with urlopen(f"{replica.url}/metrics", timeout=50) as response:
        text: str = io.TextIOWrapper(response).read()
        return text
