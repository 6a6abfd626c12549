"""One client's connection: refusals in the service's words, and an end to whatever takes too long on it.

No request sets a clock. What begins slowly is noted where it is seen, and the server looks at each connection once in a
while.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo

from service.api.responses import error_response
from service.errors import (
    HeaderFieldsTooLarge,
    InternalError,
    MalformedRequest,
    RequestTimeout,
    ServiceError,
    UriTooLong,
)
from service.settings.http import MAX_FIELD_BYTES, MAX_FIELDS, MAX_HEAD_BYTES, MAX_URL_BYTES

if TYPE_CHECKING:
    from service.api.server.server import Server

LEAST_TAKEN_BYTES = 64 * 1024
"""Of answers that wait for it a client takes so many in the time it has, or all."""

MUCH_BYTES = 4096
"""What arrives at once and is more than most requests."""

_log = logging.getLogger(__name__)
_receive = RequestHandler.data_received


class ClientConnection(RequestHandler):
    """aiohttp's, which knows of none of these bounds."""

    __slots__ = (
        "_body_since",
        "_head_bytes",
        "_head_since",
        "_is_unreadable",
        "_made_at",
        "_nth_with_body",
        "_nth_with_head",
        "_server",
        "_unsent_bytes",
        "_unsent_since",
    )

    def __init__(self, server: "Server", **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server
        self._made_at = self._loop.time()
        self._nth_with_head = self._nth_with_body = -1  # the number of the request that these tell of
        self._head_since = self._body_since = self._unsent_since = 0.0
        self._head_bytes = self._unsent_bytes = 0
        self._is_unreadable = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._server.has_room:
            super().connection_made(transport)
        else:
            self._force_close = True
            self._server.turn_away(cast(asyncio.Transport, transport))  # uvloop's is none by name

    def data_received(self, data: bytes) -> None:
        if self._is_unreadable:
            return
        _receive(self, data)
        if len(data) > MUCH_BYTES:
            self._let_go_of_what_is_no_request()
        if self._current_request is not None:
            self._tell_of_a_broken_body(self._current_request)
        elif not self._messages and data and (self._waiter is not None or self._request_count == 0):
            self._note_a_head(data)  # also the first of all, which may come before anybody waits for it

    def look(self, transport: asyncio.Transport, now: float) -> None:
        """Put an end to what has taken too long by this time of the loop's."""
        if self._manager is None:  # the client has gone
            return
        patience = self._server.wait_seconds
        self._look_at_answers(transport, now, patience)
        if self._current_request is not None:
            self._look_at_a_body(self._current_request, now, patience)
        elif self._waiter is not None:
            self._look_at_a_head(now, patience)

    def log_exception(self, *arguments: Any, **options: Any) -> None:
        """Told of a broken or late body once more when its request is answered, and aiohttp reads on to its end."""
        if not isinstance(options.get("exc_info"), RequestPayloadError | RequestTimeout):
            super().log_exception(*arguments, **options)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The refusal of a request that never reached a handler; the connection is closed after it."""
        _log.debug("a request was refused before it was read: %s", message)
        response = error_response(_refusal_of(status, exc, message), self._server.error_format)
        self._server.watch.refused_unread(response)
        response.force_close()
        return response

    def _let_go_of_what_is_no_request(self) -> None:
        """aiohttp reads on behind it, and each of its faults keeps what arrived, several times, in a cycle."""
        last = self._messages[-1][0] if self._messages else None
        if isinstance(last, _ErrInfo):
            self._is_unreadable = True
            last.exc.__traceback__ = None
            refusal = _refusal_of(last.status, last.exc, last.message)
            self._messages[-1] = _ErrInfo(refusal.status, refusal, refusal.detail), EMPTY_PAYLOAD

    def _tell_of_a_broken_body(self, request: web.BaseRequest) -> None:
        """aiohttp finds what is wrong with a body, and tells whoever reads it nothing."""
        if self._messages and isinstance(self._messages[-1][0], _ErrInfo) and not request.content.is_eof():
            request.content.set_exception(RequestPayloadError("what arrived is no body"))

    def _note_a_head(self, data: bytes) -> None:
        """Some of one has arrived; blank lines before it are not of it."""
        if self._nth_with_head != self._request_count:
            if data.isspace():
                return
            self._nth_with_head, self._head_since, self._head_bytes = self._request_count, self._loop.time(), 0
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(_too_large())

    def _look_at_a_head(self, now: float, patience: float) -> None:
        if self._nth_with_head == self._request_count:
            if now - self._head_since > patience:
                self._refuse(RequestTimeout())
        elif self._request_count == 0 and now - self._made_at > patience:
            self.force_close()

    def _look_at_a_body(self, request: web.BaseRequest, now: float, patience: float) -> None:
        """While one is not whole no further request is counted."""
        if request.content.is_eof():
            return
        if self._nth_with_body != self._request_count:
            self._nth_with_body, self._body_since = self._request_count, now
        elif now - self._body_since > patience:
            request.content.set_exception(RequestTimeout())

    def _look_at_answers(self, transport: asyncio.Transport, now: float, patience: float) -> None:
        """A client that takes none of them for so long has none of them, also where the connection was to be closed."""
        unsent = transport.get_write_buffer_size()
        if not 0 < unsent <= self._unsent_bytes or self._unsent_bytes - unsent >= LEAST_TAKEN_BYTES:
            self._unsent_bytes, self._unsent_since = unsent, now
        elif now - self._unsent_since > patience:
            _log.debug("a client did not take its answers: the connection is dropped")
            transport.abort()

    def _refuse(self, refusal: ServiceError) -> None:
        """In the place of the request that is on its way, as aiohttp does with one that it cannot read."""
        if self._waiter is None or self._waiter.done():
            return
        self._request_count += 1
        self._messages.append((_ErrInfo(refusal.status, refusal, refusal.detail), EMPTY_PAYLOAD))
        self._waiter.set_result(None)


def _refusal_of(status: int, error: BaseException | None, message: str | None) -> ServiceError:
    match error:
        case ServiceError():
            return error
        case LineTooLong(args=(_, limit, *_)):
            return UriTooLong(MAX_URL_BYTES) if limit == MAX_URL_BYTES else _too_large()
        case _ if message == "Too many headers received":
            return _too_large()
        case _ if status == 400:
            return MalformedRequest((message or "The request could not be read.").partition("\n")[0].rstrip(":"))
        case _:
            return InternalError()


def _too_large() -> HeaderFieldsTooLarge:
    return HeaderFieldsTooLarge(max_fields=MAX_FIELDS, max_field_bytes=MAX_FIELD_BYTES, max_bytes=MAX_HEAD_BYTES)
