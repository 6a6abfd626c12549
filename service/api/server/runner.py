"""aiohttp's runner, but for its server, which keeps to bounds and says every refusal in the service's words."""

from typing import Any

from aiohttp import web

from service.api.app_keys import ACCESS_LOG, SETTINGS
from service.api.middleware import MIDDLEWARE
from service.api.server.server import Server
from service.settings.http import MAX_FIELD_BYTES, MAX_FIELDS, MAX_URL_BYTES


class Runner(web.AppRunner):
    """Runs an application behind its middleware."""

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
            error_format=settings.session_error_format,
            watch=self.app[ACCESS_LOG],
            wait_seconds=settings.session_request_timeout_seconds,
            max_connections=settings.session_max_connections,
            request_factory=server.request_factory,
            **self._kwargs,
        )
