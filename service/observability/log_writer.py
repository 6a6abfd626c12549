"""Writes lines from a background thread, so that a slow reader does not delay requests."""

import logging
import os
import select
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from threading import Event, Thread
from typing import Protocol

_MAX_DELAY_SECONDS = 0.05
_MAX_QUEUED_LINES = 20_000
_CLOSE_TIMEOUT_SECONDS = 2
_PAUSE_AFTER_ERROR_SECONDS = 1
_NEWLINE = ord("\n")

_log = logging.getLogger(__name__)


class Stream(Protocol):
    """A file with a constant descriptor."""

    def fileno(self) -> int: ...


class LogWriter:
    """Takes lines from any thread and writes them to `stream` in batches, within 50 ms.

    If the reader is too slow or the disk is full, lines are dropped and counted, and a later line reports the number.

    `max_write_bytes` limits a write to what a pipe writes atomically, so that processes can share it. A write then ends
    with a whole line. A longer line is written by itself.
    """

    def __init__(self, stream: Stream, max_write_bytes: int | None = None, name: str = "the log") -> None:
        self._file = stream.fileno()
        self._name = name
        self._max_write_bytes = max_write_bytes
        self._poll = select.poll()
        self._poll.register(self._file, select.POLLOUT)
        self._has_partial_line = False
        self._queue: deque[str] = deque()  # append and popleft are thread-safe
        self._dropped = 0
        self.before_write: Callable[[], None] = _do_nothing
        """Called by the writing thread before each batch."""
        self.on_error: Callable[[OSError], None] = _do_nothing
        """Called by the writing thread when a write fails."""
        self.on_dropped: Callable[[int], None] = _do_nothing
        """Called by any thread with a number of dropped lines."""
        self._due, self._urgent = Event(), Event()
        self._is_closing = False
        self._thread = Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        if len(self._queue) >= _MAX_QUEUED_LINES:
            self._drop(1)
            return
        self._queue.append(line)
        if not self._due.is_set():
            self._due.set()

    def write_now(self, line: str) -> None:
        """Write the line and all queued lines without delay."""
        self.write(line)
        if not self._urgent.is_set():
            self._urgent.set()

    def at(self, level: int) -> Callable[[str], None]:
        """Return the method for lines of this level. Warnings are written now: the process may end next."""
        return self.write_now if level >= logging.WARNING else self.write

    def close(self) -> None:
        """Write the queued lines. Takes at most two seconds if the reader does not read."""
        self._is_closing = True
        self._urgent.set()
        self._due.set()
        self._thread.join(_CLOSE_TIMEOUT_SECONDS)

    def _run(self) -> None:
        while self._queue or not self._is_closing:
            self._due.wait()
            self._urgent.wait(_MAX_DELAY_SECONDS)
            self._due.clear()  # before the lines are taken: a line from now on sets it again
            self._urgent.clear()
            try:
                self._write_queue()
            except Exception:
                _log.exception("writing %s failed and continues", self._name)
                time.sleep(_PAUSE_AFTER_ERROR_SECONDS)

    def _write_queue(self) -> None:
        self.before_write()
        lines = [(self._queue.popleft() + "\n").encode(errors="backslashreplace") for _ in range(len(self._queue))]
        for batch in [lines] if self._max_write_bytes is None else _batches(lines, self._max_write_bytes):
            try:
                self._write_all(b"".join(batch))
            except OSError as error:
                self._drop(len(batch))
                self.on_error(error)
            else:
                self._report_dropped()

    def _write_all(self, text: bytes) -> None:
        rest = memoryview(b"\n" + text if self._has_partial_line else text)
        while rest:
            written = self._write_some(rest)
            self._has_partial_line = rest[written - 1] != _NEWLINE
            rest = rest[written:]

    def _write_some(self, text: memoryview) -> int:
        """Block until a part is written, even if another process has made the shared file non-blocking."""
        while True:
            try:
                return os.write(self._file, text)
            except BlockingIOError:
                self._poll.poll()

    def _drop(self, number: int) -> None:
        self._dropped += number
        self.on_dropped(number)

    def _report_dropped(self) -> None:
        if self._dropped and len(self._queue) < _MAX_QUEUED_LINES:
            dropped, self._dropped = self._dropped, 0
            _log.warning("%d lines of %s were dropped: the reader was too slow or the disk full", dropped, self._name)


def _do_nothing(_: object = None) -> None:
    pass


def _batches(lines: Sequence[bytes], max_bytes: int) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for line in lines:
        if batch and sum(map(len, batch)) + len(line) > max_bytes:
            yield batch
            batch = []
        batch.append(line)
    if batch:
        yield batch
