"""Every request under watch: it is given an id, and a moment later the log and the metrics are told how it went."""

import re
import secrets
import time
from itertools import count
from typing import Any, NamedTuple

from aiohttp import web
from prometheus_client import Histogram

from service.event_log import Event, EventLog, Write
from service.later import Later
from service.log import REQUEST_ID
from service.metrics import Metrics
from service.middleware import PROBES, Handle

REQUEST_ID_HEADER = "X-Request-ID"

_ACCEPTED_ID = re.compile(r"[\w.:/+=@~-]{1,128}", re.ASCII)
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

_Resource = web.AbstractResource | str
"""What a request was routed to; a word where it was to nothing."""


class Watch:
    """Keeps an eye on the requests of one application."""

    def __init__(self, metrics: Metrics, log: EventLog, later: Later) -> None:
        self.metrics = metrics
        self.later = later
        self.log = log
        self._kinds: dict[tuple[str, _Resource, int], _Kind] = {}
        self._prefix = secrets.token_hex(8)
        self._numbers = count(1)

    def over(self, handle: Handle) -> Handle:
        """The same, under watch. `handle` finds a route for every request and raises nothing."""

        later = self.later

        async def answer(request: Any) -> web.StreamResponse:
            started = time.perf_counter()
            request_id = request.headers.get(REQUEST_ID_HEADER)
            if request_id is None or not _ACCEPTED_ID.fullmatch(request_id):
                request_id = self._new_id()
            REQUEST_ID.set(request_id)
            response = await handle(request)
            response.headers[REQUEST_ID_HEADER] = request_id
            match = request.match_info
            event = Event(time.time(), request_id, match.get("session_id"), time.perf_counter() - started)
            later.do(self._tell, request.method, match.route.resource or "unmatched", response.status, event)
            return response

        return answer

    def refused_unread(self, response: web.StreamResponse) -> None:
        """Told of the response to what arrived and could not be read as a request."""
        response.headers[REQUEST_ID_HEADER] = request_id = self._new_id()
        self.later.do(self._tell, "other", "unread", response.status, Event(time.time(), request_id, None, 0))

    def _tell(self, method: str, resource: _Resource, status: int, event: Event) -> None:
        kind = self._kind(method, resource, status)
        kind.seconds.observe(event.took_seconds or 0)
        if kind.write is not None:
            kind.write(event)

    def _kind(self, method: str, resource: _Resource, status: int) -> "_Kind":
        if method not in _METHODS:
            method = "other"
        kind = self._kinds.get((method, resource, status))
        return kind or self._kinds.setdefault((method, resource, status), self._new_kind(method, resource, status))

    def _new_kind(self, method: str, resource: _Resource, status: int) -> "_Kind":
        route = resource if isinstance(resource, str) else resource.canonical
        level = "warning" if status >= 500 else "debug" if route in PROBES else "info"
        write = self.log.of(level, "request", method=method, route=route, status=status)
        return _Kind(self.metrics.request_seconds.labels(method, route, str(status)), write)

    def _new_id(self) -> str:
        return f"{self._prefix}-{next(self._numbers)}"


class _Kind(NamedTuple):
    """Requests of one method, route and status: where their durations and their lines go."""

    seconds: Histogram
    write: Write | None
