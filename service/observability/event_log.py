"""The lines that come by the thousand, of requests and of sessions' lives.

As JSON they are put together from templates, for through structlog they would cost three times as much.
"""

from collections.abc import Callable
from typing import NamedTuple, TextIO

import orjson
import structlog

from service.observability.log import Format, Level, configure, is_readable, number_of
from service.observability.log_writer import LogWriter
from service.shared_secret import SharedSecret
from service.timestamps import iso


class Event(NamedTuple):
    """What varies between lines of one kind."""

    at_seconds: float
    """Since the epoch."""
    request_id: str | None = None
    session_id: str | None = None
    took_seconds: float | None = None


Write = Callable[[Event], None]


class EventLog:
    """Where events go: as JSON into `lines`, with the `worker` if there is one; for people, and without lines, through
    structlog. Ids are hashed by the `secret`. All this is there for whoever else has something to tell.
    """

    def __init__(
        self,
        secret: SharedSecret,
        lines: LogWriter | None = None,
        worker: int | None = None,
        *,
        is_readable: bool = False,
    ) -> None:
        self.secret = secret
        self.lines = lines
        self.worker = worker
        self.is_readable = is_readable
        self._facts = {} if worker is None else {"worker": worker}

    def of(self, level: str, event: str, **facts: str | int) -> Write | None:
        """What writes the lines of one kind of event, which have these facts in common; None below the log's level."""
        logger = structlog.get_logger("service").bind()
        if not logger.is_enabled_for(number_of(level)):
            return None
        if self.lines is None or self.is_readable:
            return _through_structlog(logger.bind(**facts), level, event, self.secret)
        facts = {"level": level, "event": event, **self._facts, **facts}
        return _by_template(self.lines.at(number_of(level)), facts, self.secret)


def event_log_on(stream: TextIO, format_: Format, level: Level, worker: int | None = None) -> EventLog:
    """All logging is set up to go into the stream, and the events with it. Its secret is not known yet."""
    secret = SharedSecret()
    lines = configure(format_, level, stream, secret, worker)
    return EventLog(secret, lines, worker, is_readable=is_readable(format_, stream))


def _through_structlog(
    logger: structlog.typing.FilteringBoundLogger, level: str, kind: str, secret: SharedSecret
) -> Write:
    def write(event: Event) -> None:
        told = {
            "ms": None if event.took_seconds is None else round(event.took_seconds * 1000, 3),
            "session": event.session_id and secret.hashed(event.session_id),
            "request_id": event.request_id,
        }
        said = {name: value for name, value in told.items() if value is not None}
        logger.log(number_of(level), kind, timestamp=_timestamp(event), **said)

    return write


def _by_template(leave: Callable[[str], None], facts: dict[str, str | int], secret: SharedSecret) -> Write:
    """What varies is numbers, hex digits and an id of a few safe characters: no need to escape it."""
    known = orjson.dumps(facts).decode()[1:-1]
    hashed = secret.hashed

    def write(event: Event) -> None:
        _, request_id, session_id, seconds = event
        ms = "" if seconds is None else f',"ms":{seconds * 1000:.3f}'
        session = f',"session":"{hashed(session_id)}"' if session_id else ""
        request = f',"request_id":"{request_id}"' if request_id else ""
        leave(f'{{"timestamp":"{_timestamp(event)}",{known}{ms}{session}{request}}}')

    return write


def _timestamp(event: Event) -> str:
    return iso(int(event.at_seconds * 1000))
