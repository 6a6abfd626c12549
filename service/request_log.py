"""The line of each request: as JSON from a template, for through structlog it would cost three times as much."""

import time
from collections.abc import Callable

import orjson
import structlog

from service.instants import iso
from service.log import REQUEST_ID, Lines, number_of

Write = Callable[[float, str | None], None]
"""Takes a request's milliseconds and the hash of its session's id, if it has one."""


class RequestLog:
    """Where the lines of requests go: as JSON into `lines`; without them through structlog, for a terminal."""

    def __init__(self, lines: Lines | None = None) -> None:
        self._lines = lines

    def of(self, level: str, **facts: str | int) -> Write | None:
        """What writes the lines of requests with these facts in common; None where their level is not logged."""
        logger = structlog.get_logger("service.requests").bind(**facts)
        if not logger.is_enabled_for(number_of(level)):
            return None
        if self._lines is None:
            return _through_structlog(getattr(logger, level))
        return _by_template(self._lines, {"level": level, "event": "request", **facts})


def _through_structlog(log: Callable[..., None]) -> Write:
    def write(ms: float, session: str | None) -> None:
        log("request", ms=round(ms, 3), **({"session": session} if session else {}))

    return write


def _by_template(lines: Lines, facts: dict[str, str | int]) -> Write:
    """What varies is a number, hex digits, an id of a few safe characters and a timestamp: no need to escape it."""
    known = orjson.dumps(facts).decode()[1:-1]

    def write(ms: float, session: str | None) -> None:
        of_session = f'"session":"{session}",' if session else ""
        timestamp = iso(time.time_ns() // 1_000_000)
        request_id = REQUEST_ID.get()
        lines.write(f'{{"timestamp":"{timestamp}",{known},"ms":{ms:.3f},{of_session}"request_id":"{request_id}"}}\n')
        lines.flush()

    return write
