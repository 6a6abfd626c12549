"""Logging to stderr: JSON lines, or readable lines on a terminal."""

import atexit
import json
import logging
import os
import re
import select
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, TextIO

import orjson

from service.observability.log_writer import LogWriter
from service.settings.observability import LogFormat, LogLevel
from service.shared_secret import SharedSecret
from service.timestamps import iso

REQUEST_ID: ContextVar[str] = ContextVar("request_id")
"""Id of the current request; each log line of the request includes it."""

_SESSION_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32,}", re.IGNORECASE)
"""Matches session ids of every format, together with adjacent hex digits."""

_log = logging.getLogger(__name__)

_RESET, _BOLD, _DIM, _CYAN, _MAGENTA = "\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[36m", "\x1b[35m"
_LOGGER_STYLE = "\x1b[1;34m"
_LEVEL_STYLES = {"debug": "\x1b[1;32m", "info": "\x1b[1;32m", "warning": "\x1b[1;33m"}
_ERROR_STYLE = "\x1b[1;31m"
_NEEDS_QUOTES = re.compile(r"[\s=\"']")


def is_console(format_: LogFormat, stream: TextIO) -> bool:
    """Return whether lines are written for people; `auto` depends on the stream."""
    return format_ == "console" or (format_ == "auto" and stream.isatty())


def configure_logging(
    format_: LogFormat, level: LogLevel, stream: TextIO, secret: SharedSecret, worker: int | None = None
) -> LogWriter:
    """Configure the root logger and return the writer of its lines.

    Session ids in messages and tracebacks are hashed with `secret`. With a `worker` number, several processes share the
    stream: each line includes the number and is written in one piece.
    """
    writer = LogWriter(stream, None if worker is None else select.PIPE_BUF)
    atexit.register(writer.close)
    _configure(_Handler(writer), format_, level, stream, secret, worker)
    return writer


def configure_logging_without_thread(format_: LogFormat, level: LogLevel, stream: TextIO) -> None:
    """Configure the root logger of a process that starts no thread, because it is forked later.

    A line that the reader of `stream` does not take at once is dropped.
    """
    _configure(_NonBlockingHandler(stream), format_, level, stream, SharedSecret(), None)


def _configure(
    handler: logging.Handler,
    format_: LogFormat,
    level: LogLevel,
    stream: TextIO,
    secret: SharedSecret,
    worker: int | None,
) -> None:
    if is_console(format_, stream):
        handler.setFormatter(ConsoleFormatter(secret, worker, is_colored=stream.isatty()))
    else:
        handler.setFormatter(JsonFormatter(secret, worker))
    logging.basicConfig(level=level_number(level), handlers=[handler], force=True)


def level_number(level: str) -> int:
    """Return the number of a level in the standard library."""
    return logging.getLevelNamesMapping()[level.upper()]


class _Handler(logging.Handler):
    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._writer.at(record.levelno)(self.format(record))
        except Exception:  # for example a message that does not match its arguments
            self.handleError(record)


class _NonBlockingHandler(logging.Handler):
    """Drops lines while the stream is full, and reports their number later."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._file = stream.fileno()
        self._poll = select.poll()
        self._poll.register(self._file, select.POLLOUT)
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
        except Exception:
            self.handleError(record)
            return
        if not self._has_written(line):
            self._dropped += 1
        elif self._dropped:
            dropped, self._dropped = self._dropped, 0
            _log.warning("%d lines of the log were dropped: the reader was too slow or the disk full", dropped)

    def _has_written(self, line: bytes) -> bool:
        """Write parts that fit into a pipe that is ready."""
        try:
            while line and self._poll.poll(0):
                line = line[os.write(self._file, line[: select.PIPE_BUF]) :]
        except OSError:
            pass
        return not line


class _Formatter(logging.Formatter):
    """Collects the members of a line.

    A record with `fields` is an event of the `EventLog`. Other records include the name of their logger.
    """

    def __init__(self, secret: SharedSecret, worker: int | None = None) -> None:
        super().__init__()
        self._secret = secret
        self._worker = {} if worker is None else {"worker": worker}

    def members_of(self, record: logging.LogRecord) -> dict[str, Any]:
        fields = getattr(record, "fields", None)
        request_id = REQUEST_ID.get(None)
        members = {
            "timestamp": iso(int(record.created * 1000)),
            "level": record.levelname.lower(),
            "event": self._without_session_ids(record.getMessage()),
            **({"logger": record.name} if fields is None else {}),
            **self._worker,
            **({} if request_id is None else {"request_id": request_id}),
            **(fields or {}),
        }
        if record.exc_info:
            members["exception"] = self._without_session_ids(self.formatException(record.exc_info))
        return members

    def _without_session_ids(self, text: str) -> str:
        return _SESSION_ID.sub(lambda match: self._secret.hash_id(match[0]), text)


class JsonFormatter(_Formatter):
    """Formats each record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        return orjson.dumps(self.members_of(record), default=str).decode()


class ConsoleFormatter(_Formatter):
    """Formats records for a terminal, with colors where it supports them."""

    def __init__(self, secret: SharedSecret, worker: int | None = None, *, is_colored: bool = False) -> None:
        super().__init__(secret, worker)
        self._is_colored = is_colored

    def format(self, record: logging.LogRecord) -> str:
        members = self.members_of(record)
        exception = members.pop("exception", None)
        line = console_line(members, is_colored=self._is_colored)
        return line if exception is None else f"{line}\n{exception}"


def console_line(members: Mapping[str, Any], *, is_colored: bool = False) -> str:
    """Return a readable line: timestamp, level, event, logger, then the other members in alphabetical order."""

    def styled(text: str, style: str) -> str:
        return f"{style}{text}{_RESET}" if is_colored else text

    others = dict(members)
    timestamp, level, event = (str(others.pop(name)) for name in ("timestamp", "level", "event"))
    logger = others.pop("logger", None)
    parts = [
        styled(timestamp, _DIM),
        f"[{styled(f'{level:<9}', _LEVEL_STYLES.get(level, _ERROR_STYLE))}]",
        styled(f"{event:<30}", _BOLD),
        *([] if logger is None else [f"[{styled(logger, _LOGGER_STYLE)}]"]),
        *(f"{styled(name, _CYAN)}={styled(_quoted(value), _MAGENTA)}" for name, value in sorted(others.items())),
    ]
    return " ".join(parts)


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if _NEEDS_QUOTES.search(text) else text
