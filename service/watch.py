"""Every request under watch: it is given an id, and the log and the metrics are told how it went."""

import re
import secrets
from itertools import count
from time import perf_counter
from typing import Any, NamedTuple

from aiohttp import web
from prometheus_client import Histogram

from service.lifecycle import hashed
from service.log import REQUEST_ID
from service.metrics import Metrics
from service.middleware import PROBES, Handle, route_of
from service.request_log import RequestLog, Write

REQUEST_ID_HEADER = "X-Request-ID"

_ACCEPTED_ID = re.compile(r"[\w.:/+=@~-]{1,128}", re.ASCII)
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class Watch:
    """Keeps an eye on the requests of one application."""

    def __init__(self, metrics: Metrics, log: RequestLog) -> None:
        self._seconds = metrics.request_seconds
        self._log = log
        self._kinds: dict[tuple[str, str, int], _Kind] = {}
        self._prefix = secrets.token_hex(8)
        self._numbers = count(1)

    def over(self, handle: Handle) -> Handle:
        """The same, under watch. `handle` finds a route for every request and raises nothing."""

        async def answer(request: Any) -> web.StreamResponse:
            started = perf_counter()
            request_id = request.headers.get(REQUEST_ID_HEADER)
            if request_id is None or not _ACCEPTED_ID.fullmatch(request_id):
                request_id = self._new_id()
            REQUEST_ID.set(request_id)
            response = await handle(request)
            response.headers[REQUEST_ID_HEADER] = request_id
            kind = self._kind(request.method, route_of(request) or "unmatched", response.status)
            self._tell(kind, perf_counter() - started, request.match_info.get("session_id"))
            return response

        return answer

    def refused_unread(self, response: web.StreamResponse) -> None:
        """Told of the response to what arrived and could not be read as a request."""
        response.headers[REQUEST_ID_HEADER] = request_id = self._new_id()
        REQUEST_ID.set(request_id)
        self._tell(self._kind("other", "unread", response.status), 0, None)

    def _tell(self, kind: "_Kind", seconds: float, session_id: str | None) -> None:
        kind.seconds.observe(seconds)
        if kind.write is not None:
            kind.write(seconds * 1000, hashed(session_id) if session_id else None)

    def _kind(self, method: str, route: str, status: int) -> "_Kind":
        if method not in _METHODS:
            method = "other"
        kind = self._kinds.get((method, route, status))
        return kind or self._kinds.setdefault((method, route, status), self._new_kind(method, route, status))

    def _new_kind(self, method: str, route: str, status: int) -> "_Kind":
        level = "warning" if status >= 500 else "debug" if route in PROBES else "info"
        write = self._log.of(level, method=method, route=route, status=status)
        return _Kind(self._seconds.labels(method, route, str(status)), write)

    def _new_id(self) -> str:
        return f"{self._prefix}-{next(self._numbers)}"


class _Kind(NamedTuple):
    """Requests of one method, route and status: where their durations and their lines go."""

    seconds: Histogram
    write: Write | None
