"""A JSON response that is sent in a single write."""

from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from time import time

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from service.api.security_headers import SECURITY_HEADERS

_HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store", **SECURITY_HEADERS}


class JsonResponse(web.StreamResponse):
    """JSON that must not be cached. `etag` is a tag without quotes.

    Subclasses `StreamResponse` only so that aiohttp accepts it, and implements only what aiohttp and the service use.
    aiohttp sends responses to HTTP/1.0 and HEAD requests, and the last response of a connection.
    """

    __slots__ = ("_etag", "_is_last", "_slow", "body", "code", "headers", "status")

    status: int
    headers: dict[str, str]  # type: ignore[assignment]  # keys are case-sensitive here

    def __init__(
        self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None, etag: bytes = b""
    ) -> None:
        self.body = body
        self.status = status
        self.headers = {} if headers is None else {**headers}
        self.code: str | None = None
        """The error code, for the access log."""
        self._etag = etag
        self._is_last = False
        self._slow: _SlowResponse | None = None

    def force_close(self) -> None:
        self._is_last = True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        if self._is_last or not request.keep_alive or request.version != HttpVersion11 or request.method == "HEAD":
            return await self._slow_response().prepare(request)
        writer = request.writer
        data = self.to_bytes()
        self.body = b""  # a client that reads slowly must not occupy the memory of two copies
        await writer.write_eof(data)
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        if self._slow is not None:
            await self._slow.write_eof(data)

    @property
    def keep_alive(self) -> bool | None:
        return self._slow is None or self._slow.keep_alive

    def to_bytes(self) -> bytes:
        """Return the head and the body of an HTTP/1.1 response. Raises ValueError for a line break in a header."""
        own_headers = "".join([f"{name}: {value}\r\n" for name, value in self.headers.items()])
        if own_headers.count("\n") != len(self.headers):
            raise ValueError("a header must not contain a line break")
        body = self.body
        return b"%b%bContent-Length: %d\r\nDate: %b\r\n\r\n%b" % (
            _head(self.status, self._etag),
            own_headers.encode(),
            len(body),
            _date(int(time())),
            body,
        )

    def _slow_response(self) -> "_SlowResponse":
        headers = {**self.headers, **_common_headers(self._etag)}
        self._slow = _SlowResponse(body=self.body, status=self.status, headers=headers)
        if self._is_last:
            self._slow.force_close()
        return self._slow


class _SlowResponse(web.Response):
    async def _prepare_headers(self) -> None:
        """Remove the name and version of aiohttp, which responses to unreadable requests contain too."""
        await super()._prepare_headers()
        del self.headers["Server"]


@lru_cache
def _head(status: int, etag: bytes) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in _common_headers(etag).items())
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}".encode()


def _common_headers(etag: bytes) -> dict[str, str]:
    return {**_HEADERS, "ETag": f'"{etag.decode()}"'} if etag else _HEADERS


@lru_cache(maxsize=1)
def _date(seconds: int) -> bytes:
    return formatdate(seconds, usegmt=True).encode()
