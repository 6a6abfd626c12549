"""All connections of one process: how many there may be, and a look at each of them once in a while."""

import asyncio
import logging
from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_urldispatcher import MatchInfoError

from service.api.access_log import AccessLog
from service.api.responses import error_response
from service.api.server.connection import ClientConnection
from service.errors import MalformedRequest, TooManyConnections

LONGEST_INTERVAL_SECONDS = 1
"""Between two looks at the connections; where clients have little time, a tenth of that."""

_FAREWELL_SECONDS = 1
"""A client that is turned away may take so long to read why: a connection that is closed at once tells nobody."""
_MOST_FAREWELLS = 256
_ROOM_AGAIN = 0.9

_log = logging.getLogger(__name__)


def require_http_1(request: Any) -> None:
    """Raises MalformedRequest for HTTP/0.9 and HTTP/2.0, which aiohttp's parser accepts as if they were HTTP/1.1."""
    if request._version is HttpVersion11:
        return
    major, minor = request._version
    if (major, minor) not in (HttpVersion10, HttpVersion11):
        request._version = HttpVersion10  # of the response
        request._match_info = MatchInfoError(web.HTTPBadRequest())  # the access log reads it without a route
        raise MalformedRequest(f"The service supports HTTP/1.1, not HTTP/{major}.{minor}.")


class Server(web.Server):
    """Makes connections, with the bounds of `patience_seconds` and `max_connections`."""

    def __init__(
        self,
        *arguments: Any,
        error_format: str,
        watch: AccessLog,
        wait_seconds: float,
        max_connections: int,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.error_format = error_format
        self.watch = watch
        self.wait_seconds = wait_seconds
        self._max_connections = max_connections
        self._farewells: set[asyncio.Transport] = set()
        self._is_full = False
        self._interval_seconds = min(LONGEST_INTERVAL_SECONDS, wait_seconds / 10)
        self._next_look = self._loop.call_later(self._interval_seconds, self._look)

    def __call__(self) -> RequestHandler:
        return ClientConnection(self, loop=self._loop, **self._kwargs)

    @property
    def has_room(self) -> bool:
        return len(self._connections) < self._max_connections

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self.watch.metrics.http_connections.inc()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        if handler in self._connections:
            self.watch.metrics.http_connections.dec()
        super().connection_lost(handler, exc)

    def turn_away(self, transport: asyncio.Transport) -> None:
        """Say so and close, without waiting for a request."""
        self.watch.metrics.http_connections_refused.inc()
        if not self._is_full:
            self._is_full = True
            _log.warning("connections are refused: there are %d (SESSION_MAX_CONNECTIONS)", self._max_connections)
        if len(self._farewells) >= _MOST_FAREWELLS:
            transport.abort()
            return
        transport.write(error_response(TooManyConnections(), self.error_format).whole())
        transport.write_eof()
        self._farewells.add(transport)
        self._loop.call_later(_FAREWELL_SECONDS, self._leave, transport)

    def pre_shutdown(self) -> None:
        self._next_look.cancel()
        for transport in list(self._farewells):
            self._leave(transport)
        super().pre_shutdown()

    def _look(self) -> None:
        now = self._loop.time()
        for connection, transport in list(self._connections.items()):
            assert isinstance(connection, ClientConnection)
            connection.look(transport, now)
        if self._is_full and len(self._connections) <= self._max_connections * _ROOM_AGAIN:
            self._is_full = False
            _log.info("connections are taken again")
        self._next_look = self._loop.call_later(self._interval_seconds, self._look)

    def _leave(self, transport: asyncio.Transport) -> None:
        transport.abort()
        self._farewells.discard(transport)
