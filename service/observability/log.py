"""The log, on stderr: JSON, a line for each event, or readable on a terminal."""

import atexit
import logging
import re
import time
from contextvars import ContextVar
from select import PIPE_BUF
from typing import Literal, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from service.observability.log_writer import LogWriter
from service.shared_secret import SharedSecret
from service.timestamps import iso

Format = Literal["auto", "json", "console"]
Level = Literal["debug", "info", "warning", "error"]

REQUEST_ID: ContextVar[str] = ContextVar("request_id")
"""Of the request that is being answered: every line written on its behalf carries it."""


_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32,}", re.IGNORECASE)
"""What may be one, in any form that is issued; where digits stand before or behind it, it is hashed with them."""


def is_readable(format_: Format, stream: TextIO) -> bool:
    """Whether lines are for people; `auto` is for whoever reads the stream."""
    return format_ == "console" or (format_ == "auto" and stream.isatty())


def configure(
    format_: Format, level: Level, stream: TextIO, secret: SharedSecret, worker: int | None = None
) -> LogWriter:
    """Set up structlog, and the standard library's logging to look alike; both write into the lines returned.

    Ids are told as the secret hashes them. Where several processes share the stream, each line names the `worker`, and
    leaves whole.
    """
    readable = is_readable(format_, stream)
    rendering: list[Processor] = [_with_exception, _without_ids(secret), _console(stream) if readable else _JSON]
    threshold = number_of(level)
    lines = LogWriter(stream, None if worker is None else PIPE_BUF)
    facts = _FACTS if worker is None else [*_FACTS, _with_worker(worker)]
    atexit.register(lines.close)
    structlog.configure(
        processors=[*facts, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: _Logger(lines),
        cache_logger_on_first_use=True,
    )
    handler = _Handler(lines)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*facts, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(level=threshold, handlers=[handler], force=True)
    return lines


def number_of(level: str) -> int:
    """The standard library's number of a level."""
    return logging.getLevelNamesMapping()[level.upper()]


class _Logger:
    """What structlog writes with: it calls what is named like the level."""

    def __init__(self, lines: LogWriter) -> None:
        self.debug = self.info = lines.write
        self.warning = self.error = self.critical = lines.write_at_once


class _Handler(logging.Handler):
    """What the standard library's loggers write with."""

    def __init__(self, lines: LogWriter) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.at(record.levelno)(self.format(record))
        except Exception:  # a message that does not fit its arguments
            self.handleError(record)


def _without_ids(secret: SharedSecret) -> Processor:
    """What a library or a failure says may hold a session's key, or what a client sent."""

    def hash_ids(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        for told in event.keys() & {"event", "exception"}:
            event[told] = _ID.sub(lambda found: secret.hashed(found[0].lower()), str(event[told]))
        return event

    return hash_ids


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


def _with_worker(number: int) -> Processor:
    def add(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["worker"] = number
        return event

    return add


def _as_json(event: EventDict, **_: object) -> str:
    return orjson.dumps(event, default=str).decode()


_FACTS: list[Processor] = [_with_request_id, structlog.processors.add_log_level, _with_timestamp]
_with_exception = structlog.processors.format_exc_info
_JSON = structlog.processors.JSONRenderer(serializer=_as_json)
