"""aiohttp's runner, but for one thing: every refusal, aiohttp's own included, is in the service's words."""

import logging
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler, RequestPayloadError

from service.errors import InternalError, MalformedRequest, Refusal
from service.http.app_keys import WATCH
from service.http.middleware import Handle, refusals
from service.http.watch import Watch
from service.http.wire import refusal_response

_log = logging.getLogger(__name__)


def as_it_is(handle: Handle) -> Handle:
    return handle


class Runner(web.AppRunner):
    """Runs an application; `error_format` is the shape of its refusals; its watch is kept over its requests.

    What is given as `around` goes between the two.
    """

    def __init__(
        self,
        app: web.Application,
        error_format: str,
        around: Callable[[Handle], Handle] = as_it_is,
        **options: Any,
    ) -> None:
        super().__init__(app, access_log=None, auto_decompress=False, **options)
        self._error_format = error_format
        self._watch = app[WATCH]
        self._around = around

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        return _Server(
            self._watch.over(self._around(refusals(server.request_handler, self._error_format))),
            error_format=self._error_format,
            watch=self._watch,
            request_factory=server.request_factory,
            **self._kwargs,
        )


class _Server(web.Server):
    def __init__(self, *arguments: Any, error_format: str, watch: Watch, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.error_format = error_format
        self.watch = watch

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    __slots__ = ("_error_format", "_watch")

    def __init__(self, server: _Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._error_format = server.error_format
        self._watch = server.watch

    def log_exception(self, *arguments: Any, **options: Any) -> None:
        """Told of a broken body once more when its request has been answered, and aiohttp reads on to its end."""
        if not isinstance(options.get("exc_info"), RequestPayloadError):
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
        refusal: Refusal = InternalError()
        if status == 400:
            refusal = MalformedRequest((message or "The request could not be read.").partition("\n")[0].rstrip(":"))
        response = refusal_response(refusal, self._error_format)
        self._watch.refused_unread(response)
        response.force_close()
        return response
