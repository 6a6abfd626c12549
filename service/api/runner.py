"""aiohttp's runner, but for its server, which keeps to bounds and says every refusal in the service's words."""

from collections.abc import Callable
from typing import Any

from aiohttp import web

from service.api.app_keys import ACCESS_LOG, SETTINGS
from service.api.cors import shared
from service.api.middleware import Handle, errors_middleware
from service.api.server import Server
from service.settings.http import MAX_FIELD_BYTES, MAX_FIELDS, MAX_URL_BYTES


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
        self._error_format = error_format
        self._watch = app[ACCESS_LOG]
        self._around = around

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        settings = self.app[SETTINGS]
        handle = shared(errors_middleware(server.request_handler, self._error_format), settings.cors_origins)
        return Server(
            self._watch.over(self._around(handle)),
            error_format=self._error_format,
            watch=self._watch,
            wait_seconds=settings.session_request_timeout_seconds,
            max_connections=settings.session_max_connections,
            request_factory=server.request_factory,
            **self._kwargs,
        )
