"""Lines of the log on their way out: held for a moment while an event loop runs, never lost."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from service.log import REQUEST_ID, Lines, configure


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What the log is written into; afterwards logging is as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


async def test_lines_of_one_moment_leave_together(stream: io.StringIO) -> None:
    lines = Lines(stream)
    for number in range(3):
        lines.write(f"{number}\n")
        lines.flush()
    at_once = stream.getvalue()

    lines.write_out()

    assert (at_once, stream.getvalue()) == ("", "0\n1\n2\n")


async def test_five_hundred_lines_wait_no_longer(stream: io.StringIO) -> None:
    lines = Lines(stream)
    for _ in range(500):
        lines.write("x")
        lines.flush()

    assert stream.getvalue() == "x" * 500


def test_where_no_event_loop_runs_a_line_leaves_at_once(stream: io.StringIO) -> None:
    lines = Lines(stream)

    lines.write("alone")
    lines.flush()

    assert stream.getvalue() == "alone"


def test_both_kinds_of_logger_write_alike(stream: io.StringIO) -> None:
    configure("json", "info", stream)

    logging.getLogger("here").warning("of the %s library", "standard")
    structlog.get_logger().warning("of structlog")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]

    assert [(line["event"], line["level"]) for line in lines] == [
        ("of the standard library", "warning"),
        ("of structlog", "warning"),
    ]
    assert lines[0]["logger"] == "here"
    assert all("timestamp" in line for line in lines)


def test_a_failure_is_one_line_with_its_traceback(stream: io.StringIO) -> None:
    configure("json", "info", stream)

    try:
        raise LookupError("nowhere")
    except LookupError:
        logging.getLogger("here").exception("it failed")
    (line,) = stream.getvalue().splitlines()

    assert json.loads(line)["exception"].endswith("LookupError: nowhere")


def test_a_traceback_for_people_does_not_show_what_variables_held(stream: io.StringIO) -> None:
    configure("console", "info", stream)
    metadata = "told in " + "confidence"

    try:
        raise LookupError(len(metadata))
    except LookupError:
        logging.getLogger("here").exception("failed")

    assert "LookupError: 18" in stream.getvalue()
    assert "told in confidence" not in stream.getvalue()


async def answer(request_id: str) -> None:
    REQUEST_ID.set(request_id)
    await asyncio.sleep(0)
    logging.getLogger("here").info("answering")


async def test_a_line_names_the_request_it_was_written_for(stream: io.StringIO) -> None:
    lines = configure("json", "info", stream)

    await asyncio.gather(answer("one"), answer("two"))
    structlog.get_logger().info("nobody asked")
    lines.write_out()

    assert [json.loads(line).get("request_id") for line in stream.getvalue().splitlines()] == ["one", "two", None]


def test_below_its_level_nothing_is_written(stream: io.StringIO) -> None:
    configure("json", "error", stream)

    logging.getLogger("here").warning("unheard")
    structlog.get_logger().warning("unheard")

    assert stream.getvalue() == ""


class FullDisk(io.StringIO):
    def write(self, _: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    lines = Lines(FullDisk())

    lines.write("lost")
    lines.flush()

    assert lines._held == []
