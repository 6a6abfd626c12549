"""The log, on stderr: JSON, a line for each event, or readable on a terminal."""

import asyncio
import atexit
import hashlib
import logging
import time
from contextlib import suppress
from contextvars import ContextVar
from typing import Literal, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from service.instants import iso

Format = Literal["auto", "json", "console"]
Level = Literal["debug", "info", "warning", "error"]

REQUEST_ID: ContextVar[str] = ContextVar("request_id")
"""Of the request that is being answered: every line written on its behalf carries it."""

_HELD_SECONDS = 0.05
_HELD_LINES = 500


def is_readable(format_: Format, stream: TextIO) -> bool:
    """Whether lines are for people; `auto` is for whoever reads the stream."""
    return format_ == "console" or (format_ == "auto" and stream.isatty())


def configure(format_: Format, level: Level, stream: TextIO) -> "Lines":
    """Set up structlog, and the standard library's logging to look alike; both write into the lines returned."""
    readable = is_readable(format_, stream)
    rendering = [_console(stream)] if readable else [_with_exception, _JSON]
    threshold = number_of(level)
    lines = Lines(stream)
    atexit.register(lines.write_out)
    structlog.configure(
        processors=[*_FACTS, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, lines)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(lines)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_FACTS, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(level=threshold, handlers=[handler], force=True)
    return lines


def number_of(level: str) -> int:
    """The standard library's number of a level."""
    return logging.getLevelNamesMapping()[level.upper()]


def hashed(session_id: str) -> str:
    """Twelve hex digits that stand for an id in logs and traces: their readers must not be able to use it."""
    return hashlib.blake2b(session_id.encode(), digest_size=6).hexdigest()


class Lines:
    """A stream that holds lines back for a moment while an event loop runs, to write many at once.

    A write may cost a request as much as all the rest of its line, and under load there are thousands a second.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._held: list[str] = []
        self._is_due = False

    def write(self, line: str) -> None:
        self._held.append(line)

    def flush(self) -> None:
        if len(self._held) >= _HELD_LINES:
            self.write_out()
        elif not self._is_due:
            self._write_out_soon()

    def _write_out_soon(self) -> None:
        try:
            asyncio.get_running_loop().call_later(_HELD_SECONDS, self.write_out)
            self._is_due = True
        except RuntimeError:  # nothing runs, so nothing waits
            self.write_out()

    def write_out(self) -> None:
        self._is_due = False
        held, self._held = self._held, []
        with suppress(OSError):  # a full disk costs lines of the log, and no request
            self._stream.write("".join(held))
            self._stream.flush()


def _console(stream: TextIO) -> Processor:
    """Tracebacks are plain: structlog would use rich where that is installed, and show locals, metadata among them."""
    return structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)


def _with_request_id(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    request_id = REQUEST_ID.get(None)
    if request_id is not None:
        event.setdefault("request_id", request_id)
    return event


def _with_timestamp(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    if "timestamp" not in event:
        event["timestamp"] = iso(time.time_ns() // 1_000_000)
    return event


def _as_json(event: EventDict, **_: object) -> str:
    return orjson.dumps(event, default=str).decode()


_FACTS: list[Processor] = [_with_request_id, structlog.processors.add_log_level, _with_timestamp]
_with_exception = structlog.processors.format_exc_info
_JSON = structlog.processors.JSONRenderer(serializer=_as_json)
