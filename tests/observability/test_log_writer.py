"""Lines from any thread are written in order and in batches, and never delay the caller."""

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

from service.observability.log_writer import LogWriter, _batches

LONG = "x" * 1000
"""About a hundred of these lines fill a pipe."""


class Pipe(NamedTuple):
    """A writer to a pipe, and the end of the pipe to read from."""

    writer: LogWriter
    end: int

    def read(self) -> bytes:
        """Wait for data and return it."""
        return os.read(self.end, 1_000_000)

    def read_all(self) -> bytes:
        """Close the writer and return the rest of its lines."""
        self.writer.close()
        return self.read()

    def read_available(self) -> bytes:
        readable, _, _ = select.select([self.end], [], [], 0.01)
        return self.read() if readable else b""


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    end, beginning = os.pipe()
    with open(beginning, "w") as stream:
        writer = LogWriter(stream)
        yield Pipe(writer, end)
        os.close(end)
        writer.close()


def test_a_line_is_written_after_a_short_delay(pipe: Pipe) -> None:
    pipe.writer.write("alone")

    assert pipe.read() == b"alone\n"


@pytest.fixture
def long_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.observability.log_writer._MAX_DELAY_SECONDS", 600)


@pytest.mark.usefixtures("long_delay")
def test_lines_within_the_delay_are_written_together(pipe: Pipe) -> None:
    for number in range(3):
        pipe.writer.write(str(number))

    assert pipe.read_all() == b"0\n1\n2\n"


@pytest.mark.usefixtures("long_delay")
def test_an_urgent_line_is_written_now_with_the_lines_before_it(pipe: Pipe) -> None:
    pipe.writer.write("before")

    pipe.writer.write_now("urgent")

    assert pipe.read() == b"before\nurgent\n"


@pytest.mark.usefixtures("long_delay")
@pytest.mark.parametrize("level", [30, 40, 50], ids=["warning", "error", "critical"])
def test_warnings_and_errors_are_written_now(pipe: Pipe, level: int) -> None:
    pipe.writer.at(level)("urgent")

    assert pipe.read() == b"urgent\n"


@pytest.mark.usefixtures("long_delay")
def test_lines_below_warnings_are_delayed(pipe: Pipe) -> None:
    pipe.writer.at(20)("patient")
    pipe.writer.at(10)("more patient")

    assert pipe.read_available() == b""


def test_lines_of_several_threads_are_all_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.observability.log_writer._MAX_DELAY_SECONDS", 0)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.000001)
    numbers = [str(number) for number in range(20_000)]

    with (tmp_path / "log").open("w") as stream, ThreadPoolExecutor(4) as threads:
        writer = LogWriter(stream)
        for _ in threads.map(writer.write, numbers):
            pass
        writer.close()
    sys.setswitchinterval(interval)

    assert sorted((tmp_path / "log").read_text().split()) == sorted(numbers)


def test_lines_are_dropped_and_counted_if_the_reader_does_not_read(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("service.observability.log_writer._MAX_QUEUED_LINES", 100)
    for _ in range(1000):
        pipe.writer.write_now(LONG)

    taken = b""
    while not caplog.messages:
        taken += pipe.read_available()
    pipe.writer.write("the end")
    taken += pipe.read_all()

    dropped = 1000 - taken.count(LONG.encode())
    assert caplog.messages == [f"{dropped} lines of the log were dropped: the reader was too slow or the disk full"]


def test_a_non_blocking_file_receives_every_line_whole(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer._file, False)
    lines = [f"{number} {LONG}" for number in range(1000)]
    for line in lines:
        pipe.writer.write(line)

    taken = b""
    while taken.count(b"\n") < len(lines):
        taken += pipe.read()

    assert taken.decode().splitlines() == lines


def test_the_next_line_starts_on_a_new_line_if_a_full_disk_cut_the_last(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Mock(side_effect=[len("part"), OSError(errno.ENOSPC, ""), len("\nnext\n")])
    monkeypatch.setattr("service.observability.log_writer.os", SimpleNamespace(write=write))

    pipe.writer.write_now("part line")
    while not pipe.writer._dropped:
        pass
    pipe.writer.write_now("next")
    pipe.writer.close()

    assert [bytes(call.args[1]) for call in write.call_args_list] == [b"part line\n", b" line\n", b"\nnext\n"]


def test_close_does_not_wait_for_a_reader_that_does_not_read(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.observability.log_writer._CLOSE_TIMEOUT_SECONDS", 0.05)
    for _ in range(1000):
        pipe.writer.write(LONG)

    pipe.writer.close()

    assert pipe.writer._thread.is_alive()


def test_lines_for_a_closed_pipe_are_dropped(tmp_path: Path) -> None:
    end, beginning = os.pipe()
    os.close(end)

    with open(beginning, "w") as stream:
        writer = LogWriter(stream)
        writer.write_now("lost")
        writer.close()

    assert not writer._thread.is_alive()
    assert writer._dropped == 1


def test_characters_without_utf_8_encoding_are_escaped(pipe: Pipe) -> None:
    pipe.writer.write_now("a lone surrogate: \ud800, and a word: grüße")

    assert pipe.read().decode() == "a lone surrogate: \\ud800, and a word: grüße\n"


def test_batches_for_a_shared_file_contain_whole_lines() -> None:
    lines = [b"one\n", b"two\n", b"three\n", b"much too long\n", b"six\n"]

    assert [b"".join(batch) for batch in _batches(lines, 8)] == [
        b"one\ntwo\n",
        b"three\n",
        b"much too long\n",
        b"six\n",
    ]


def test_writing_continues_after_an_unexpected_error(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("service.observability.log_writer._PAUSE_AFTER_ERROR_SECONDS", 0)
    pipe.writer.before_write = Mock(side_effect=[TypeError("an unexpected state"), None, None])

    pipe.writer.write("first")
    while not caplog.messages:
        continue
    pipe.writer.write("second")

    assert pipe.read_all() == b"first\nsecond\n"
    assert caplog.messages == ["writing the log failed and continues"]
