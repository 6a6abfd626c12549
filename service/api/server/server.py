"""The server of one process: the connections and their limits, and the runner of the application."""

import asyncio
import logging
from collections.abc import Collection
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from service.api.access_log import AccessLog
from service.api.app_keys import ACCESS_LOG, SETTINGS
from service.api.middleware import MIDDLEWARE
from service.api.response_bodies import error_response
from service.api.routes import Handler
from service.api.server.connection import ClientConnection, close_after_upgrade
from service.errors import TooManyConnections
from service.settings.http import MAX_FIELD_BYTES, MAX_FIELDS, MAX_URL_BYTES

MAX_CHECK_INTERVAL_SECONDS = 1
"""Connections are checked for timeouts at this interval, or ten times in a shorter request timeout."""

_REJECTION_SECONDS = 1
"""Time for a rejected client to read the error, before the connection is closed."""
_MAX_REJECTIONS = 256
"""Number of rejected connections that may be open. Further ones are closed without an error."""
_ROOM_RATIO = 0.9
"""The log reports that the server accepts connections again below this share of the maximum."""

_log = logging.getLogger(__name__)


class Server(web.Server):
    """Accepts connections up to a maximum and checks their timeouts."""

    def __init__(
        self,
        handler: Handler,
        *,
        log: AccessLog,
        cors_origins: Collection[str],
        error_format: str,
        request_timeout_seconds: float,
        max_connections: int,
        **options: Any,
    ) -> None:
        super().__init__(handler, **options)  # type: ignore[arg-type]  # the request factory creates web.Request
        self.access_log = log
        self.cors_origins = cors_origins
        self.error_format = error_format
        self.request_timeout_seconds = request_timeout_seconds
        self._max_connections = max_connections
        self._rejected: set[asyncio.Transport] = set()
        self._is_full = False
        self._check_interval_seconds = min(MAX_CHECK_INTERVAL_SECONDS, request_timeout_seconds / 10)
        self._next_check = self._loop.call_later(self._check_interval_seconds, self._check_connections)

    def __call__(self) -> RequestHandler:
        return ClientConnection(self, self, loop=self._loop, **self._kwargs)

    @property
    def has_room(self) -> bool:
        return len(self._connections) < self._max_connections

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self.access_log.metrics.http_connections.inc()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        if handler in self._connections:
            self.access_log.metrics.http_connections.dec()
        super().connection_lost(handler, exc)

    def reject(self, transport: asyncio.Transport) -> None:
        """Send a TooManyConnections error without reading a request, then close the connection."""
        self.access_log.metrics.http_connections_refused.inc()
        if not self._is_full:
            self._is_full = True
            _log.warning("rejecting connections: SESSION_MAX_CONNECTIONS is reached (%d)", self._max_connections)
        if len(self._rejected) >= _MAX_REJECTIONS:
            transport.abort()
            return
        transport.write(error_response(TooManyConnections(), self.error_format).to_bytes())
        transport.write_eof()
        self._rejected.add(transport)
        self._loop.call_later(_REJECTION_SECONDS, self._close_rejected, transport)

    def pre_shutdown(self) -> None:
        self._next_check.cancel()
        for transport in list(self._rejected):
            self._close_rejected(transport)
        super().pre_shutdown()

    def _check_connections(self) -> None:
        self._next_check = self._loop.call_later(self._check_interval_seconds, self._check_connections)
        now = self._loop.time()
        for connection, transport in list(self._connections.items()):
            assert isinstance(connection, ClientConnection)
            try:
                connection.check_timeouts(transport, now)
            except Exception:
                _log.exception("a connection is closed, because its timeouts cannot be checked")
                transport.abort()
        if self._is_full and len(self._connections) <= self._max_connections * _ROOM_RATIO:
            self._is_full = False
            _log.info("accepting connections again")

    def _close_rejected(self, transport: asyncio.Transport) -> None:
        transport.abort()
        self._rejected.discard(transport)


class Runner(web.AppRunner):
    """Runs an application on a `Server`, within its application middleware."""

    def __init__(self, app: web.Application, **options: Any) -> None:
        settings = app[SETTINGS]
        super().__init__(
            app,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=settings.session_keep_alive_seconds,
            lingering_time=settings.session_request_timeout_seconds,
            max_line_size=MAX_URL_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            max_headers=MAX_FIELDS,
            **options,
        )

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        settings = self.app[SETTINGS]
        return Server(
            self.app[MIDDLEWARE].wrap_application(server.request_handler),
            log=self.app[ACCESS_LOG],
            cors_origins=settings.cors_origins,
            error_format=settings.session_error_format,
            request_timeout_seconds=settings.session_request_timeout_seconds,
            max_connections=settings.session_max_connections,
            request_factory=close_after_upgrade(server.request_factory),
            **self._kwargs,
        )
