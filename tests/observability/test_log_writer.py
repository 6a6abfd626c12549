"""Lines on their way out: held for a moment, in their order, from any thread, and never waited for."""

import errno
import os
import select
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from unittest.mock import Mock

import pytest

from service.observability.log_writer import LogWriter, _pieces

LONG = "x" * 1000
"""Some hundred of them fill a pipe."""


class Pipe(NamedTuple):
    """Lines that leave through a pipe, and its end to read from."""

    lines: LogWriter
    end: int

    def read(self) -> bytes:
        """What is there, as soon as something is."""
        return os.read(self.end, 1_000_000)

    def read_to_the_end(self) -> bytes:
        """What is there once everything has been written."""
        self.lines.close()
        return self.read()

    def read_what_is_there(self) -> bytes:
        is_there, _, _ = select.select([self.end], [], [], 0.01)
        return self.read() if is_there else b""


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    end, beginning = os.pipe()
    with open(beginning, "w") as stream:
        lines = LogWriter(stream)
        yield Pipe(lines, end)
        os.close(end)
        lines.close()


def test_a_line_leaves_in_its_moment(pipe: Pipe) -> None:
    pipe.lines.write("alone")

    assert pipe.read() == b"alone\n"


@pytest.fixture
def held_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.observability.log_writer._HELD_SECONDS", 600)


@pytest.mark.usefixtures("held_long")
def test_lines_of_one_moment_leave_together(pipe: Pipe) -> None:
    for number in range(3):
        pipe.lines.write(str(number))

    assert pipe.read_to_the_end() == b"0\n1\n2\n"


@pytest.mark.usefixtures("held_long")
def test_what_does_not_wait_takes_along_what_does(pipe: Pipe) -> None:
    pipe.lines.write("before")

    pipe.lines.write_at_once("urgent")

    assert pipe.read() == b"before\nurgent\n"


@pytest.mark.usefixtures("held_long")
@pytest.mark.parametrize("level", [30, 40, 50], ids=["warning", "error", "critical"])
def test_from_warnings_on_nothing_waits(pipe: Pipe, level: int) -> None:
    pipe.lines.at(level)("urgent")

    assert pipe.read() == b"urgent\n"


@pytest.mark.usefixtures("held_long")
def test_what_is_less_than_a_warning_waits(pipe: Pipe) -> None:
    pipe.lines.at(20)("patient")
    pipe.lines.at(10)("more so")

    assert pipe.read_what_is_there() == b""


def test_what_several_threads_write_is_all_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.observability.log_writer._HELD_SECONDS", 0)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.000001)
    numbers = [str(number) for number in range(20_000)]

    with (tmp_path / "log").open("w") as stream, ThreadPoolExecutor(4) as threads:
        lines = LogWriter(stream)
        for _ in threads.map(lines.write, numbers):
            pass
        lines.close()
    sys.setswitchinterval(interval)

    assert sorted((tmp_path / "log").read_text().split()) == sorted(numbers)


def test_nobody_waits_for_a_reader_who_does_not_read_and_what_was_dropped_is_told(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("service.observability.log_writer._MOST_HELD", 100)
    for _ in range(1000):
        pipe.lines.write_at_once(LONG)

    taken = b""
    while not caplog.messages:
        taken += pipe.read_what_is_there()
    pipe.lines.write("the end")
    taken += pipe.read_to_the_end()

    dropped = 1000 - taken.count(LONG.encode())
    assert caplog.messages == [f"{dropped} lines of the log were dropped: a reader was too slow, or a disk full"]


def test_where_writes_may_not_block_every_line_is_whole_and_there(pipe: Pipe) -> None:
    os.set_blocking(pipe.lines._file, False)
    lines = [f"{number} {LONG}" for number in range(1000)]
    for line in lines:
        pipe.lines.write(line)

    taken = b""
    while taken.count(b"\n") < len(lines):
        taken += pipe.read()

    assert taken.decode().splitlines() == lines


def test_a_line_that_a_full_disk_tore_is_ended_before_the_next(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Mock(side_effect=[len("torn"), OSError(errno.ENOSPC, ""), len("\nnext\n")])
    monkeypatch.setattr("service.observability.log_writer.os", SimpleNamespace(write=write))

    pipe.lines.write_at_once("torn line")
    while not pipe.lines._dropped:
        pass
    pipe.lines.write_at_once("next")
    pipe.lines.close()

    assert [bytes(call.args[1]) for call in write.call_args_list] == [b"torn line\n", b" line\n", b"\nnext\n"]


def test_a_reader_who_does_not_read_does_not_hold_up_the_end(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.observability.log_writer._END_SECONDS", 0.05)
    for _ in range(1000):
        pipe.lines.write(LONG)

    pipe.lines.close()

    assert pipe.lines._thread.is_alive()


def test_a_reader_who_has_gone_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    end, beginning = os.pipe()
    os.close(end)

    with open(beginning, "w") as stream:
        lines = LogWriter(stream)
        lines.write_at_once("lost")
        lines.close()

    assert not lines._thread.is_alive()
    assert lines._dropped == 1


def test_what_is_no_text_is_written_all_the_same(pipe: Pipe) -> None:
    pipe.lines.write_at_once("half a pair: \ud800, and a word: grüße")

    assert pipe.read().decode() == "half a pair: \\ud800, and a word: grüße\n"


def test_where_others_write_too_lines_leave_in_pieces_that_stay_whole() -> None:
    lines = [b"one\n", b"two\n", b"three\n", b"much too long\n", b"six\n"]

    assert [b"".join(piece) for piece in _pieces(lines, 8)] == [b"one\ntwo\n", b"three\n", b"much too long\n", b"six\n"]
