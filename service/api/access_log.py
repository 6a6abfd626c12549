"""The access log: request ids, a log line and the duration of each request."""

import asyncio
import re
import secrets
import time
from http import HTTPStatus
from itertools import count
from typing import NamedTuple

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

CLIENT_CLOSED_REQUEST = 499
"""Logged when the client disconnects before the response is sent (nginx's 499)."""

_VALID_ID = re.compile(r"[\w.:/+=@~-]{1,128}", re.ASCII)
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

_Kind = tuple[str, web.AbstractResource | str, int, str | None]
"""The labels that requests share: method, resource (or a word without one), status and error code."""


class AccessLog:
    """Logs and measures the requests of one application."""

    def __init__(self, metrics: Metrics, log: EventLog) -> None:
        self.metrics = metrics
        self.log = log
        self._recorders: dict[_Kind, _Recorder] = {}
        self._id_prefix = secrets.token_hex(8)
        self._id_numbers = count(1)

    def middleware(self, handler: Handler) -> Handler:
        """Log and measure the requests of a handler that raises no exception except CancelledError."""
        record = self._record_request

        async def handle(request: web.Request) -> web.StreamResponse:
            started_at = time.perf_counter()
            request_id = request.headers.get(REQUEST_ID_HEADER)
            if request_id is None or not _VALID_ID.fullmatch(request_id):
                request_id = self._new_id()
            REQUEST_ID.set(request_id)
            try:
                response = await handler(request)
            except asyncio.CancelledError:
                record(request, request_id, started_at, CLIENT_CLOSED_REQUEST, None)
                raise
            response.headers[REQUEST_ID_HEADER] = request_id
            record(request, request_id, started_at, response.status, _code_of(response))
            return response

        return handle

    def log_unreadable(self, response: web.StreamResponse) -> None:
        """Log a request that could not be parsed, and add a request id to its response."""
        response.headers[REQUEST_ID_HEADER] = request_id = self._new_id()
        self._record(("other", "unread", response.status, _code_of(response)), request_id, None, 0)

    def _record_request(
        self, request: web.Request, request_id: str, started_at: float, status: int, code: str | None
    ) -> None:
        match = request.match_info
        seconds = time.perf_counter() - started_at
        method = request.method if request.method in _METHODS else "other"
        kind = (method, match.route.resource or "unmatched", status, code)
        self._record(kind, request_id, match.get("session_id"), seconds)

    def _record(self, kind: _Kind, request_id: str, session_id: str | None, seconds: float) -> None:
        recorder = self._recorders.get(kind) or self._new_recorder(kind)
        recorder.seconds.observe(seconds)
        recorder.write(request_id, session_id, seconds)

    def _new_recorder(self, kind: _Kind) -> "_Recorder":
        method, resource, status, code = kind
        route = resource if isinstance(resource, str) else resource.canonical
        level: LogLevel = "warning" if status >= CLIENT_CLOSED_REQUEST else "info"
        if route in PROBE_PATHS and (status < HTTPStatus.BAD_REQUEST or status == HTTPStatus.SERVICE_UNAVAILABLE):
            level = "debug"  # Health logs when the service becomes ready and when it is no longer ready
        code_field = {"code": code} if code else {}
        write = self.log.bind(level, "request", method=method, route=route, status=status, **code_field)
        recorder = _Recorder(self.metrics.request_seconds.labels(method, route, str(status)), write)
        return self._recorders.setdefault(kind, recorder)

    def _new_id(self) -> str:
        return f"{self._id_prefix}-{next(self._id_numbers)}"


class _Recorder(NamedTuple):
    """The histogram and the log of one kind of requests."""

    seconds: Histogram
    write: WriteEvent


def _code_of(response: web.StreamResponse) -> str | None:
    return response.code if isinstance(response, JsonResponse) else None
