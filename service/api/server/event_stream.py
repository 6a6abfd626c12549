"""A response of server-sent events."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Self

from aiohttp import web

from service.api.app_keys import RATE_LIMIT_STATUS, SETTINGS
from service.api.cors import headers_for
from service.errors import ServiceError
from service.live.hub import ListenerDropped
from service.observability.log import REQUEST_ID

COMMENT_SECONDS = 15
"""Proxies close connections that are idle for longer, usually a minute."""
RETRY_MS = 2000
"""How long a client waits before it reconnects."""

_log = logging.getLogger(__name__)

_COMMENT = b": keep-alive\n\n"
_RECONNECT = b'event: reconnect\ndata: {"type":"reconnect"}\n\n'


class ClientDisconnected(Exception):  # noqa: N818  (clients end streams this way)
    """The client closed the connection."""


class EventStream:
    """Writes events to one client. Methods raise ClientDisconnected. A write waits while the client reads slowly."""

    def __init__(self, response: web.StreamResponse, request: web.Request) -> None:
        self.response = response
        self._request = request

    @classmethod
    async def open(cls, request: web.Request, extra_headers: Mapping[str, str]) -> Self:
        """Send the head of the response."""
        headers = {
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-cache",
            "Connection": "keep-alive",
            "X-Accel-Buffering": "no",
            "X-Request-ID": REQUEST_ID.get(""),
            # Middleware adds headers to the response of a handler, which is too late for a stream.
            **headers_for(request.headers.get("Origin"), request.app[SETTINGS].cors_origins),
            **extra_headers,
        }
        status = request.get(RATE_LIMIT_STATUS)
        response = web.StreamResponse(headers=headers if status is None else headers | status.headers())
        await response.prepare(request)
        await response.write(b"retry: %d\n\n" % RETRY_MS)
        return cls(response, request)

    async def send(self, frame: bytes) -> None:
        try:
            await self.response.write(frame)
        except ConnectionError:
            raise ClientDisconnected from None

    async def send_comment(self) -> None:
        """Show that the connection is alive."""
        await self.send(_COMMENT)

    async def send_reconnect(self) -> None:
        """Send `reconnect`: the stream ends, and the client continues on another connection."""
        await self.send(_RECONNECT)

    def disconnect(self) -> None:
        """Close the connection of a client that is too slow. It resumes after the last event that it received."""
        if self._request.transport is not None:
            self._request.transport.abort()


async def stream_response(
    request: web.Request,
    write_events: Callable[[EventStream], Awaitable[None]],
    *,
    failure: bytes = _RECONNECT,
    extra_headers: Mapping[str, str] = MappingProxyType({}),
) -> web.StreamResponse:
    """Open a stream and write events. After an error, the last event is `failure`: the response has begun already."""
    stream = await EventStream.open(request, extra_headers)
    with suppress(ClientDisconnected):
        try:
            await write_events(stream)
        except ClientDisconnected:
            raise
        except ListenerDropped:
            stream.disconnect()
        except ServiceError:
            await stream.send(failure)
        except Exception:
            _log.exception("an event stream failed")
            await stream.send(failure)
    return stream.response
