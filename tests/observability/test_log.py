"""Log lines: JSON or readable, with their request id and traceback, and without session ids."""

import asyncio
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO, get_args

import pytest

from service.observability.event_log import EventLog
from service.observability.log import REQUEST_ID, ConsoleFormatter, configure_logging
from service.sessions.session import new_session_id
from service.settings.observability import LogFormat, LogLevel
from service.settings.sessions import IdFormat
from service.shared_secret import SharedSecret

Logging = Callable[[LogFormat, LogLevel], Callable[[], str]]

SECRET = SharedSecret()
SECRET.load("5e" * 32)
SESSION_ID = "0123456789abcdef0123456789abcdef"
HASH = SECRET.hash_id(SESSION_ID)


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[TextIO]:
    """A stream to log to. Restores the root logger afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    with (tmp_path / "log").open("w") as stream:
        yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def log_as(stream: TextIO) -> Logging:
    """Configures logging and returns a function that returns the lines written since."""

    def set_up(format_: LogFormat, level: LogLevel) -> Callable[[], str]:
        writer = configure_logging(format_, level, stream, SECRET)

        def written() -> str:
            writer.close()
            return Path(stream.name).read_text()

        return written

    return set_up


def test_a_line_contains_its_timestamp_level_event_and_logger(log_as: Logging) -> None:
    written = log_as("json", "info")

    logging.getLogger("here").warning("%d of %d", 1, 2)

    line = json.loads(written())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line == {"level": "warning", "event": "1 of 2", "logger": "here"}


def test_a_failure_is_one_line_with_its_traceback(log_as: Logging) -> None:
    written = log_as("json", "info")

    log_failure(LookupError("nowhere"))

    (line,) = written().splitlines()
    assert json.loads(line)["exception"].endswith("LookupError: nowhere")


def test_a_readable_traceback_follows_its_line_without_values_of_variables(log_as: Logging) -> None:
    written = log_as("console", "info")
    metadata = "in " + "confidence"

    log_failure(LookupError(len(metadata)))

    assert written().splitlines()[1] == "Traceback (most recent call last):"
    assert "LookupError: 13" in written()
    assert "in confidence" not in written()


async def log_in_request(request_id: str) -> None:
    REQUEST_ID.set(request_id)
    await asyncio.sleep(0)
    logging.getLogger("here").info("answering")


async def test_a_line_contains_the_id_of_its_request(log_as: Logging) -> None:
    written = log_as("json", "info")

    await asyncio.gather(log_in_request("one"), log_in_request("two"))
    logging.getLogger("here").info("outside of requests")

    assert [json.loads(line).get("request_id") for line in written().splitlines()] == ["one", "two", None]


def test_lines_below_the_level_are_not_written(log_as: Logging) -> None:
    written = log_as("json", "error")

    logging.getLogger("here").warning("not written")

    assert written() == ""


@pytest.mark.parametrize("format_", ["json", "console"])
def test_each_line_contains_the_number_of_its_worker(stream: TextIO, format_: LogFormat) -> None:
    writer = configure_logging(format_, "info", stream, SECRET, worker=7)
    event_log = EventLog(SECRET, writer, worker=7, is_console=format_ == "console")

    logging.getLogger("here").warning("a message")
    event_log.bind("info", "an event")(None, None, None)
    event_log.log("info", "a rare event")
    writer.close()

    lines = Path(stream.name).read_text().splitlines()
    assert [re.findall(r"worker\W+(\d+)", line) for line in lines] == [["7"]] * 3


@pytest.mark.parametrize("id_format", get_args(IdFormat))
def test_session_ids_of_every_format_are_hashed_in_messages(log_as: Logging, id_format: IdFormat) -> None:
    written = log_as("json", "info")
    session_id = new_session_id(id_format)

    logging.getLogger("here").error("WRONGTYPE session:{%s}:%s:tombstone", session_id[:2], session_id)

    assert SECRET.hash_id(session_id) in written()
    assert session_id not in written()


def test_session_ids_in_tracebacks_are_hashed(log_as: Logging) -> None:
    written = log_as("json", "info")

    log_failure(LookupError(SESSION_ID))

    assert json.loads(written())["exception"].endswith(f"LookupError: {HASH}")


def test_a_session_id_with_adjacent_digits_is_hashed(log_as: Logging) -> None:
    written = log_as("json", "info")
    session_id = new_session_id("hex128")

    logging.getLogger("here").error("nothing at /%%7B%s7", session_id)

    assert session_id not in written()


def test_readable_lines_quote_values_with_blanks(log_as: Logging) -> None:
    written = log_as("console", "info")

    EventLog(SECRET).log("info", "it happened", why="a b", number=3)

    assert re.fullmatch(r'\S+ \[info     \] it happened {19} number=3 why="a b"\n', written())


def test_lines_are_colored_only_for_a_terminal() -> None:
    record = logging.LogRecord("here", logging.WARNING, "", 0, "a message", None, None)

    assert "\x1b[1;33mwarning" in ConsoleFormatter(SECRET, is_colored=True).format(record)
    assert "\x1b" not in ConsoleFormatter(SECRET).format(record)


# Events


def event_as(event_log: EventLog) -> None:
    event_log.bind("info", "request", method="GET", status=200)("r-1", SESSION_ID, 0.0123)


def members_of(text: str) -> dict[str, Any]:
    members: dict[str, Any] = json.loads(text)
    del members["timestamp"]
    return members


EVENT = {
    "level": "info",
    "event": "request",
    "method": "GET",
    "status": 200,
    "ms": 12.3,
    "session": HASH,
    "request_id": "r-1",
}


def test_an_event_has_the_same_members_from_a_template_and_through_logging(stream: TextIO) -> None:
    writer = configure_logging("json", "info", stream, SECRET)

    event_as(EventLog(SECRET, writer))
    event_as(EventLog(SECRET))
    writer.close()

    lines = Path(stream.name).read_text().splitlines()
    assert [members_of(line) for line in lines] == [EVENT, EVENT]


def test_a_rare_event_contains_its_fields_and_no_logger(log_as: Logging) -> None:
    written = log_as("json", "info")

    EventLog(SECRET).log("warning", "policy changed", how="put")

    assert members_of(written()) == {"level": "warning", "event": "policy changed", "how": "put"}


@pytest.mark.parametrize("uses_template", [True, False])
def test_events_below_the_level_are_not_written(stream: TextIO, uses_template: bool) -> None:
    writer = configure_logging("json", "warning", stream, SECRET)

    event_as(EventLog(SECRET, writer if uses_template else None))
    writer.close()

    assert Path(stream.name).read_text() == ""


def log_failure(error: Exception) -> None:
    try:
        raise error
    except type(error):
        logging.getLogger("here").exception("failed")
