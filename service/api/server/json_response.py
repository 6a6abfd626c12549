"""A JSON response that leaves in one write, head and body together: much less work than aiohttp's own way to it."""

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
    """JSON that no cache may keep; with a `tag` it has that as its ETag.

    HTTP/1.0, HEAD, and connections about to close are left to aiohttp.

    It is one of aiohttp's responses by name; of what these have it has what the service uses, as plain attributes.
    """

    __slots__ = ("_is_last", "_slow", "_tag", "body", "code", "headers", "status")

    status: int
    headers: dict[str, str]  # type: ignore[assignment]  # whoever sets one spells it as everybody does

    def __init__(
        self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None, tag: bytes = b""
    ) -> None:
        self.body = body
        self.status = status
        self.headers = {} if headers is None else {**headers}
        self.code: str | None = None
        """The code of the refusal that it tells of."""
        self._tag = tag
        self._is_last = False
        self._slow: _Slow | None = None

    def force_close(self) -> None:
        self._is_last = True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        if self._is_last or not request.keep_alive or request.version != HttpVersion11 or request.method == "HEAD":
            return await self._left_to_aiohttp().prepare(request)
        writer = request.writer
        await writer.write_eof(self.whole())
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        if self._slow is not None:
            await self._slow.write_eof(data)

    @property
    def keep_alive(self) -> bool | None:
        return self._slow is None or self._slow.keep_alive

    def _left_to_aiohttp(self) -> "_Slow":
        self._slow = _Slow(body=self.body, status=self.status, headers={**self.headers, **_headers(self._tag)})
        if self._is_last:
            self._slow.force_close()
        return self._slow

    def whole(self) -> bytes:
        own = "".join([f"{name}: {value}\r\n" for name, value in self.headers.items()])
        if own.count("\n") != len(self.headers):
            raise ValueError("a header holds a line break")
        body = self.body
        return b"%b%bContent-Length: %d\r\nDate: %b\r\n\r\n%b" % (
            _opening(self.status, self._tag),
            own.encode(),
            len(body),
            _date(int(time())),
            body,
        )


class _Slow(web.Response):
    async def _prepare_headers(self) -> None:
        """aiohttp's, but for its own name and version: it gives them to what no handler answered, too."""
        await super()._prepare_headers()
        del self.headers["Server"]


@lru_cache
def _opening(status: int, tag: bytes) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in _headers(tag).items())
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}".encode()


def _headers(tag: bytes) -> dict[str, str]:
    return {**_HEADERS, "ETag": f'"{tag.decode()}"'} if tag else _HEADERS


@lru_cache(maxsize=1)
def _date(seconds: int) -> bytes:
    return formatdate(seconds, usegmt=True).encode()
