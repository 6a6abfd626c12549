"""Structured log lines of frequent events: requests and session changes.

JSON lines are built from templates. Through `logging` they would cost several times as much.
"""

import logging
import time
from collections.abc import Callable
from typing import TextIO

import orjson

from service.observability.log import configure_logging, is_console, level_number
from service.observability.log_writer import LogWriter
from service.settings.observability import LogFormat, LogLevel
from service.shared_secret import SharedSecret
from service.timestamps import iso

_log = logging.getLogger("service.events")


WriteEvent = Callable[[str | None, str | None, float | None], None]
"""Writes a line of one kind. Takes the request id, the session id and the duration in seconds."""


class EventLog:
    """Writes events as JSON to `writer`, or through `logging` if lines are readable or without a writer.

    Session ids are hashed with `secret`.
    """

    def __init__(
        self,
        secret: SharedSecret,
        writer: LogWriter | None = None,
        worker: int | None = None,
        *,
        is_console: bool = False,
    ) -> None:
        self.secret = secret
        self.writer = writer
        self.worker = worker
        self.is_console = is_console
        self._worker_field = {} if worker is None else {"worker": worker}

    def log(self, level: LogLevel, event: str, **fields: str | int) -> None:
        """Write one line. Frequent events use `bind`."""
        _log.log(level_number(level), event, extra={"fields": fields})

    def bind(self, level: LogLevel, event: str, **fields: str | int) -> WriteEvent:
        """Return a function that writes lines of one kind, which all have these fields."""
        number = level_number(level)
        if self.writer is None or self.is_console:
            return _through_logging(number, event, fields, self.secret)
        if not _log.isEnabledFor(number):
            return _discard
        members = {"level": level, "event": event, **self._worker_field, **fields}
        return _by_template(self.writer.at(number), members, self.secret)


def open_event_log(stream: TextIO, format_: LogFormat, level: LogLevel, worker: int | None = None) -> EventLog:
    """Configure logging to `stream` and return an event log on it. Its secret is not loaded yet."""
    secret = SharedSecret()
    writer = configure_logging(format_, level, stream, secret, worker)
    return EventLog(secret, writer, worker, is_console=is_console(format_, stream))


def _discard(_: str | None, __: str | None, ___: float | None) -> None:
    """Write nothing: the level of the event is disabled."""


def _through_logging(level: int, message: str, fields: dict[str, str | int], secret: SharedSecret) -> WriteEvent:
    def write(request_id: str | None, session_id: str | None, duration_seconds: float | None) -> None:
        if not _log.isEnabledFor(level):
            return
        varying = {
            "ms": None if duration_seconds is None else round(duration_seconds * 1000, 3),
            "session": session_id and secret.hash_id(session_id),
            "request_id": request_id,
        }
        given = {name: value for name, value in varying.items() if value is not None}
        _log.log(level, message, extra={"fields": {**fields, **given}})

    return write


def _by_template(write_line: Callable[[str], None], members: dict[str, str | int], secret: SharedSecret) -> WriteEvent:
    """Varying values are numbers, hex digits, and request ids of safe characters: none needs escaping."""
    constant = orjson.dumps(members).decode()[1:-1]
    hashed = secret.hash_id

    def write(request_id: str | None, session_id: str | None, duration_seconds: float | None) -> None:
        timestamp = iso(time.time_ns() // 1_000_000)
        ms = "" if duration_seconds is None else f',"ms":{duration_seconds * 1000:.3f}'
        session = f',"session":"{hashed(session_id)}"' if session_id else ""
        request = f',"request_id":"{request_id}"' if request_id else ""
        write_line(f'{{"timestamp":"{timestamp}",{constant}{ms}{session}{request}}}')

    return write
