"""A client connection with limits on size and time.

No request sets a timer: a connection records when something starts, and the server checks all connections regularly.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Any, Protocol, cast

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo
from aiohttp.web_urldispatcher import MatchInfoError

from service.api.access_log import AccessLog
from service.api.cors import find_origin, headers_for
from service.api.response_bodies import error_response
from service.errors import (
    HeaderFieldsTooLarge,
    InternalError,
    MalformedRequest,
    RequestTimeout,
    ServiceError,
    UriTooLong,
)
from service.settings.http import MAX_FIELD_BYTES, MAX_FIELDS, MAX_HEAD_BYTES, MAX_URL_BYTES

MIN_READ_BYTES = 64 * 1024
"""A client must read this much of its pending responses, or all of them, within the request timeout."""

LARGE_CHUNK_BYTES = 4096
"""Larger than most requests."""

_log = logging.getLogger(__name__)
_data_received = RequestHandler.data_received


class ConnectionPolicy(Protocol):
    """The limits that a server sets for its connections."""

    access_log: AccessLog
    cors_origins: Collection[str]
    error_format: str
    request_timeout_seconds: float

    @property
    def has_room(self) -> bool:
        """Whether the server accepts another connection."""

    def reject(self, transport: asyncio.Transport) -> None:
        """Send an error and close the connection."""


class ClientConnection(RequestHandler):
    """Adds limits and the error format of the service to aiohttp's connection."""

    __slots__ = (
        "_body_request_number",
        "_body_started_at",
        "_connected_at",
        "_head_bytes",
        "_head_request_number",
        "_head_started_at",
        "_is_unreadable",
        "_origin",
        "_policy",
        "_unsent_bytes",
        "_unsent_since",
    )

    def __init__(self, server: web.Server, policy: ConnectionPolicy, **options: Any) -> None:
        super().__init__(server, **options)
        self._policy = policy
        self._connected_at = self._loop.time()
        self._head_request_number = self._body_request_number = -1
        self._head_started_at = self._body_started_at = self._unsent_since = 0.0
        self._head_bytes = self._unsent_bytes = 0
        self._is_unreadable = False
        self._origin: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._policy.has_room:
            super().connection_made(transport)
        else:
            self._force_close = True
            self._policy.reject(cast(asyncio.Transport, transport))  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        if self._is_unreadable:
            return
        is_idle = self._is_idle
        _data_received(self, data)
        if is_idle and self._messages:
            self._keep_alive_after_upgrade(data)
        if self._messages and isinstance(self._messages[-1][0], _ErrInfo):
            self._origin = find_origin(data) or self._origin
        if len(data) > LARGE_CHUNK_BYTES:
            self._discard_unreadable_data()
        if self._current_request is not None:
            self._fail_broken_body(self._current_request)
        elif not self._messages and data and (self._waiter is not None or self._request_count == 0):
            self._record_head(data)  # the first head may arrive before aiohttp waits for it

    def check_timeouts(self, transport: asyncio.Transport, now: float) -> None:
        """End a request or response that exceeded its timeout at the loop time `now`."""
        if self._manager is None:  # disconnected
            return
        timeout_seconds = self._policy.request_timeout_seconds
        self._check_unsent_responses(transport, now, timeout_seconds)
        if self._current_request is not None:
            self._check_body(self._current_request, now, timeout_seconds)
        elif self._waiter is not None:
            self._check_head(now, timeout_seconds)

    def log_exception(self, *arguments: Any, **options: Any) -> None:
        """Skip broken and late bodies: the handler already raised them, and aiohttp logs them again."""
        if not isinstance(options.get("exc_info"), RequestPayloadError | RequestTimeout):
            super().log_exception(*arguments, **options)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the response to a request that no handler received. The connection is closed after it."""
        error = _service_error(status, exc, message)
        _log.debug("rejected an unreadable request: %s", error.code)  # `message` may contain a key from a header
        response = error_response(error, self._policy.error_format)
        response.headers.update(headers_for(self._origin, self._policy.cors_origins))
        self._policy.access_log.log_unreadable(response)
        response.force_close()
        return response

    @property
    def _is_idle(self) -> bool:
        """Whether the next byte begins a request."""
        is_waiting = self._waiter is not None or self._request_count == 0
        return is_waiting and not self._messages and self._head_request_number != self._request_count

    def _keep_alive_after_upgrade(self, data: bytes) -> None:
        """Ignore an offer to upgrade (see close_after_upgrade) if `data` is one request and nothing else."""
        message, payload = self._messages[-1]
        if isinstance(message, _ErrInfo) or not message.upgrade or len(self._messages) > 1:
            return
        body_bytes = int(message.headers.get("Content-Length", "0"))
        if payload.is_eof() and not message.chunked and data.find(b"\r\n\r\n") + 4 + body_bytes == len(data):
            self._messages[-1] = message._replace(upgrade=False), payload

    def _discard_unreadable_data(self) -> None:
        """Stop reading after a parse error. Else aiohttp parses on, and keeps the data in a cycle for each error."""
        message = self._messages[-1][0] if self._messages else None
        if isinstance(message, _ErrInfo):
            self._is_unreadable = True
            message.exc.__traceback__ = None
            error = _service_error(message.status, message.exc, message.message)
            self._messages[-1] = _ErrInfo(error.status, error, error.detail), EMPTY_PAYLOAD

    def _fail_broken_body(self, request: web.BaseRequest) -> None:
        """Raise a parse error in the handler that reads the body. aiohttp only queues it."""
        if self._messages and isinstance(self._messages[-1][0], _ErrInfo) and not request.content.is_eof():
            request.content.set_exception(RequestPayloadError("the body is malformed"))

    def _record_head(self, data: bytes) -> None:
        """Record a part of a request head. Blank lines before a head do not count."""
        if self._head_request_number != self._request_count:
            if data.isspace():
                return
            self._head_request_number, self._head_started_at = self._request_count, self._loop.time()
            self._head_bytes, self._origin = 0, None
        self._head_bytes += len(data)
        self._origin = find_origin(data) or self._origin
        if self._head_bytes > MAX_HEAD_BYTES:
            self._reject_request(_headers_too_large())

    def _check_head(self, now: float, timeout_seconds: float) -> None:
        if self._head_request_number == self._request_count:
            if now - self._head_started_at > timeout_seconds:
                self._reject_request(RequestTimeout())
        elif self._request_count == 0 and now - self._connected_at > timeout_seconds:
            self.force_close()

    def _check_body(self, request: web.BaseRequest, now: float, timeout_seconds: float) -> None:
        if request.content.is_eof():
            return
        if self._body_request_number != self._request_count:
            self._body_request_number, self._body_started_at = self._request_count, now
        elif now - self._body_started_at > timeout_seconds:
            request.content.set_exception(RequestTimeout())

    def _check_unsent_responses(self, transport: asyncio.Transport, now: float, timeout_seconds: float) -> None:
        """Drop a client that does not read its responses, also if the connection is about to be closed."""
        unsent = transport.get_write_buffer_size()
        if not 0 < unsent <= self._unsent_bytes or self._unsent_bytes - unsent >= MIN_READ_BYTES:
            self._unsent_bytes, self._unsent_since = unsent, now
        elif now - self._unsent_since > timeout_seconds:
            _log.debug("dropped a connection, because the client did not read its responses")
            transport.abort()

    def _reject_request(self, error: ServiceError) -> None:
        """Queue an error instead of the incomplete request, as aiohttp does with an unreadable one."""
        if self._waiter is None or self._waiter.done():
            return
        self._request_count += 1
        self._messages.append((_ErrInfo(error.status, error, error.detail), EMPTY_PAYLOAD))
        self._waiter.set_result(None)


def close_after_upgrade(create_request: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a request factory: after an offer to upgrade to another protocol than WebSocket, the connection closes.

    aiohttp's parser drops the bytes behind the request, up to the end of the segment. A body whose head was dropped
    would be parsed as a request.
    """

    def create(message: Any, *arguments: Any) -> Any:
        if message.upgrade and not _is_websocket(message.headers.get("Upgrade", "")):
            message = message._replace(should_close=True)
        return create_request(message, *arguments)

    return create


def _is_websocket(protocol: str) -> bool:
    return protocol.isascii() and protocol.lower() == "websocket"  # as aiohttp's parser compares


def require_http_1(request: Any) -> None:
    """Raises MalformedRequest for HTTP/0.9 and HTTP/2.0, which aiohttp's parser accepts as if they were HTTP/1.1."""
    if request._version is HttpVersion11:
        return
    major, minor = request._version
    if (major, minor) not in (HttpVersion10, HttpVersion11):
        request._version = HttpVersion10  # of the response
        request._match_info = MatchInfoError(web.HTTPBadRequest())  # for the access log: the router has not run
        raise MalformedRequest(f"The service supports HTTP/1.1, not HTTP/{major}.{minor}.")


def _service_error(status: int, error: BaseException | None, message: str | None) -> ServiceError:
    match error:
        case ServiceError():
            return error
        case LineTooLong(args=(_, limit, *_)):
            return UriTooLong(MAX_URL_BYTES) if limit == MAX_URL_BYTES else _headers_too_large()
        case _ if message == "Too many headers received":
            return _headers_too_large()
        case _ if status == 400:
            return MalformedRequest((message or "The request could not be parsed.").partition("\n")[0].rstrip(":"))
        case _:
            return InternalError()


def _headers_too_large() -> HeaderFieldsTooLarge:
    return HeaderFieldsTooLarge(max_fields=MAX_FIELDS, max_field_bytes=MAX_FIELD_BYTES, max_bytes=MAX_HEAD_BYTES)
