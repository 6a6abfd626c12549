"""What the log says and how: as JSON or readable, with its request, its traceback, and nothing told in confidence."""

import asyncio
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest
import structlog

from service.observability.event_log import Event, EventLog
from service.observability.log import REQUEST_ID, Format, Level, configure
from service.sessions.session import IdFormat, new_session_id
from service.shared_secret import SharedSecret

Logging = Callable[[Format, Level], Callable[[], str]]

SECRET = SharedSecret()
SECRET.learn("5e" * 32)


@pytest.fixture
def logging_as(tmp_path: Path) -> Iterator[Logging]:
    """Sets up the log as asked; what it returns tells what was written. Afterwards logging is as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    log = tmp_path / "log"

    def set_up(format_: Format, level: Level) -> Callable[[], str]:
        lines = configure(format_, level, stream, SECRET)

        def written() -> str:
            lines.close()
            return log.read_text()

        return written

    with log.open("w") as stream:
        yield set_up
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_both_kinds_of_logger_write_alike(logging_as: Logging) -> None:
    written = logging_as("json", "info")

    logging.getLogger("here").warning("of the %s library", "standard")
    structlog.get_logger().warning("of structlog")
    lines = [json.loads(line) for line in written().splitlines()]

    assert [(line["event"], line["level"]) for line in lines] == [
        ("of the standard library", "warning"),
        ("of structlog", "warning"),
    ]
    assert lines[0]["logger"] == "here"
    assert all("timestamp" in line for line in lines)


def test_a_failure_is_one_line_with_its_traceback(logging_as: Logging) -> None:
    written = logging_as("json", "info")

    try:
        raise LookupError("nowhere")
    except LookupError:
        logging.getLogger("here").exception("it failed")
    (line,) = written().splitlines()

    assert json.loads(line)["exception"].endswith("LookupError: nowhere")


def test_a_traceback_for_people_does_not_show_what_variables_held(logging_as: Logging) -> None:
    written = logging_as("console", "info")
    metadata = "told in " + "confidence"

    try:
        raise LookupError(len(metadata))
    except LookupError:
        logging.getLogger("here").exception("failed")

    assert "LookupError: 18" in written()
    assert "told in confidence" not in written()


async def answer(request_id: str) -> None:
    REQUEST_ID.set(request_id)
    await asyncio.sleep(0)
    logging.getLogger("here").info("answering")


async def test_a_line_names_the_request_it_was_written_for(logging_as: Logging) -> None:
    written = logging_as("json", "info")

    await asyncio.gather(answer("one"), answer("two"))
    structlog.get_logger().info("nobody asked")

    assert [json.loads(line).get("request_id") for line in written().splitlines()] == ["one", "two", None]


def test_below_its_level_nothing_is_written(logging_as: Logging) -> None:
    written = logging_as("json", "error")

    logging.getLogger("here").warning("unheard")
    structlog.get_logger().warning("unheard")

    assert written() == ""


@pytest.mark.parametrize("format_", ["json", "console"])
def test_each_line_says_which_worker_wrote_it(tmp_path: Path, logging_as: Logging, format_: Format) -> None:
    logging_as(format_, "info")()  # and afterwards logging is as it was
    with (tmp_path / "shared").open("w") as stream:
        lines = configure(format_, "info", stream, SharedSecret(), worker=7)
        event_log = EventLog(SharedSecret(), None if format_ == "console" else lines, worker=7)

        logging.getLogger("here").warning("of the standard library")
        structlog.get_logger().warning("of structlog")
        write = event_log.of("info", "an event")
        assert write is not None
        write(Event(0))
        lines.close()

    written = (tmp_path / "shared").read_text()
    assert [re.findall(r"worker\W+(\d+)", line) for line in written.splitlines()] == [["7"]] * 3


@pytest.mark.parametrize("id_format", get_args(IdFormat))
def test_an_id_of_any_format_is_hashed_in_what_others_say(logging_as: Logging, id_format: IdFormat) -> None:
    written = logging_as("json", "info")
    session_id = new_session_id(id_format)

    logging.getLogger("here").error("WRONGTYPE session:{%s}:%s:tombstone", session_id[:2], session_id)

    assert SECRET.hashed(session_id) in written()
    assert session_id not in written()


def test_digits_around_an_id_do_not_bring_it_into_the_log(logging_as: Logging) -> None:
    written = logging_as("json", "info")
    session_id = new_session_id("hex128")

    logging.getLogger("here").error("nothing at /%%7B%s7", session_id)

    assert session_id not in written()
