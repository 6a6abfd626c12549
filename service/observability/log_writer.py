"""Lines on their way out of the process: many at once, by a thread of its own; nobody waits for whoever reads them."""

import logging
import os
import select
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from threading import Event, Thread
from typing import Protocol

_HELD_SECONDS = 0.05
_MOST_HELD = 20_000
_END_SECONDS = 2
_END_OF_LINE = ord("\n")

_log = logging.getLogger(__name__)


class Stream(Protocol):
    """What has a file descriptor, and keeps it."""

    def fileno(self) -> int: ...


class LogWriter:
    """Takes lines, without their ends, from any thread, and writes them where `stream` goes.

    A write may cost a request as much as all the rest of its line, so a line waits a moment for others. What whoever
    reads is too slow for, or a full disk does not take, is dropped and counted; once it flows again, a line says so.

    Where no write may have more than `most_bytes`, as a pipe that others write into keeps no more in one piece, it ends
    with a line; only a line that is longer is written by itself.
    """

    def __init__(self, stream: Stream, most_bytes: int | None = None, name: str = "the log") -> None:
        self._file = stream.fileno()
        self._name = name
        self._most_bytes = most_bytes
        self._room = select.poll()
        self._room.register(self._file, select.POLLOUT)
        self._torn = False
        """Whether a line was begun and not ended, for want of room on the disk."""
        self._held: deque[str] = deque()  # threads may append to it, and take from it, without a lock
        self._dropped = 0
        self.before_writing: Callable[[], None] = _leave_it
        """Called by the thread that writes, each time."""
        self.when_refused: Callable[[OSError], None] = _leave_it
        """Likewise with why what was written was not taken."""
        self.when_dropped: Callable[[int], None] = _leave_it
        """Called with how many lines were dropped, by any thread."""
        self._due, self._urgent = Event(), Event()
        self._closing = False
        self._thread = Thread(target=self._write_on, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        if len(self._held) >= _MOST_HELD:
            self._drop(1)
            return
        self._held.append(line)
        if not self._due.is_set():
            self._due.set()

    def write_at_once(self, line: str) -> None:
        """It does not wait for others, and takes along what is held."""
        self.write(line)
        if not self._urgent.is_set():
            self._urgent.set()

    def at(self, level: int) -> Callable[[str], None]:
        """How lines of a level are written: a warning may be the last word of its process."""
        return self.write_at_once if level >= logging.WARNING else self.write

    def close(self) -> None:
        """Write what is held; but whoever reads may have stopped to, so wait for two seconds at most."""
        self._closing = True
        self._urgent.set()
        self._due.set()
        self._thread.join(_END_SECONDS)

    def _write_on(self) -> None:
        while self._held or not self._closing:
            self._due.wait()
            self._urgent.wait(_HELD_SECONDS)
            self._due.clear()  # first of all: what comes from here on makes it due again
            self._urgent.clear()
            self._write_out()

    def _write_out(self) -> None:
        self.before_writing()
        lines = [(self._held.popleft() + "\n").encode(errors="backslashreplace") for _ in range(len(self._held))]
        for piece in [lines] if self._most_bytes is None else _pieces(lines, self._most_bytes):
            try:
                self._write_whole(b"".join(piece))
            except OSError as error:
                self._drop(len(piece))
                self.when_refused(error)
            else:
                self._tell_of_dropped()

    def _write_whole(self, text: bytes) -> None:
        rest = memoryview(b"\n" + text if self._torn else text)
        while rest:
            number = self._write_some(rest)
            self._torn = rest[number - 1] != _END_OF_LINE
            rest = rest[number:]

    def _write_some(self, text: memoryview) -> int:
        """Waits where it must, also where another process has set what they share not to."""
        while True:
            try:
                return os.write(self._file, text)
            except BlockingIOError:
                self._room.poll()

    def _drop(self, number: int) -> None:
        self._dropped += number
        self.when_dropped(number)

    def _tell_of_dropped(self) -> None:
        if self._dropped and len(self._held) < _MOST_HELD:
            dropped, self._dropped = self._dropped, 0
            _log.warning("%d lines of %s were dropped: a reader was too slow, or a disk full", dropped, self._name)


def _leave_it(_: object = None) -> None:
    """Nobody sees to it."""


def _pieces(lines: Sequence[bytes], most_bytes: int) -> Iterator[list[bytes]]:
    """The lines put together, as many as go into so many bytes; one that is longer stays alone."""
    together: list[bytes] = []
    for line in lines:
        if together and sum(map(len, together)) + len(line) > most_bytes:
            yield together
            together = []
        together.append(line)
    if together:
        yield together
