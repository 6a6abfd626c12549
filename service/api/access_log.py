"""Every request under watch: assigns a request id, then records the result in the log and the metrics."""

import asyncio
import re
import secrets
import time
from http import HTTPStatus
from itertools import count
from typing import Any, NamedTuple

from aiohttp import web
from multidict import istr
from prometheus_client import Histogram

from service.api.routes import PROBE_PATHS, Handler
from service.api.server.json_response import JsonResponse
from service.observability.event_log import EventLog, WriteEvent
from service.observability.log import REQUEST_ID
from service.observability.metrics import Metrics
from service.settings.observability import LogLevel

REQUEST_ID_HEADER = istr("X-Request-ID")

CUT_OFF = 499
"""The status, in the log and the metrics, of a request that nobody was answered: nginx has it of a client that left."""

_ACCEPTED_ID = re.compile(r"[\w.:/+=@~-]{1,128}", re.ASCII)
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

_Resource = web.AbstractResource | str
"""What a request was routed to; a word where it was to nothing."""

_Named = tuple[str, _Resource, int, str | None]
"""What requests of one kind have in common: method, resource, status, and the code of a refusal."""


class AccessLog:
    """Keeps an eye on the requests of one application."""

    def __init__(self, metrics: Metrics, log: EventLog) -> None:
        self.metrics = metrics
        self.log = log
        self._kinds: dict[_Named, _Kind] = {}
        self._prefix = secrets.token_hex(8)
        self._numbers = count(1)

    def middleware(self, handler: Handler) -> Handler:
        """The same, under watch. `handler` finds a route for every request; it raises nothing, but may be cancelled."""

        replies_or_none = self._answered

        async def answer(request: Any) -> web.StreamResponse:
            started = time.perf_counter()
            request_id = request.headers.get(REQUEST_ID_HEADER)
            if request_id is None or not _ACCEPTED_ID.fullmatch(request_id):
                request_id = self._new_id()
            REQUEST_ID.set(request_id)
            try:
                response = await handler(request)
            except asyncio.CancelledError:
                replies_or_none(request, request_id, started, CUT_OFF, None)
                raise
            response.headers[REQUEST_ID_HEADER] = request_id
            replies_or_none(request, request_id, started, response.status, _code_of(response))
            return response

        return answer

    def _answered(self, request: Any, request_id: str, started: float, status: int, code: str | None) -> None:
        match = request.match_info
        seconds = time.perf_counter() - started
        method = request.method if request.method in _METHODS else "other"
        kind = (method, match.route.resource or "unmatched", status, code)
        self._tell(kind, request_id, match.get("session_id"), seconds)

    def refused_unread(self, response: web.StreamResponse) -> None:
        """Told of the response to what arrived and could not be read as a request."""
        response.headers[REQUEST_ID_HEADER] = request_id = self._new_id()
        self._tell(("other", "unread", response.status, _code_of(response)), request_id, None, 0)

    def _tell(self, named: "_Named", request_id: str, session_id: str | None, seconds: float) -> None:
        kind = self._kinds.get(named) or self._new_kind(named)
        kind.seconds.observe(seconds)
        kind.write(request_id, session_id, seconds)

    def _new_kind(self, named: "_Named") -> "_Kind":
        method, resource, status, code = named
        route = resource if isinstance(resource, str) else resource.canonical
        is_usual = route in PROBE_PATHS and status < HTTPStatus.BAD_REQUEST
        level: LogLevel = "warning" if status >= CUT_OFF else "debug" if is_usual else "info"
        refused = {"code": code} if code else {}
        write = self.log.bind(level, "request", method=method, route=route, status=status, **refused)
        kind = _Kind(self.metrics.request_seconds.labels(method, route, str(status)), write)
        return self._kinds.setdefault(named, kind)

    def _new_id(self) -> str:
        return f"{self._prefix}-{next(self._numbers)}"


class _Kind(NamedTuple):
    """Requests of one method, route and status: where their durations and their lines go."""

    seconds: Histogram
    write: WriteEvent


def _code_of(response: web.StreamResponse) -> str | None:
    return response.code if isinstance(response, JsonResponse) else None
