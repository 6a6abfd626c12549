"""The line of each request: as JSON from a template, for through structlog it would cost three times as much."""

from collections.abc import Callable

import orjson
import structlog

from service.instants import iso
from service.lifecycle import hashed
from service.log import Lines, number_of

Line = tuple[float, str, float, str | None]
"""When a request was answered (seconds since the epoch), its id, how many seconds it took, its session's id if any."""

Write = Callable[[Line], None]


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
    def write(line: Line) -> None:
        answered_at, request_id, seconds, session_id = line
        session = {"session": hashed(session_id)} if session_id else {}
        log("request", timestamp=_timestamp(answered_at), ms=round(seconds * 1000, 3), **session, request_id=request_id)

    return write


def _by_template(lines: Lines, facts: dict[str, str | int]) -> Write:
    """What varies is numbers, hex digits and an id of a few safe characters: no need to escape it."""
    known = orjson.dumps(facts).decode()[1:-1]

    def write(line: Line) -> None:
        answered_at, request_id, seconds, session_id = line
        session = f'"session":"{hashed(session_id)}",' if session_id else ""
        lines.write(
            f'{{"timestamp":"{_timestamp(answered_at)}",{known},"ms":{seconds * 1000:.3f},{session}'
            f'"request_id":"{request_id}"}}\n'
        )
        lines.flush()

    return write


def _timestamp(seconds: float) -> str:
    return iso(int(seconds * 1000))
