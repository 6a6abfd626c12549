"""A JSON response that leaves in one write, head and body together: much less work than aiohttp's own way to it."""

from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from time import time

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from service.http.safe_headers import SAFE

_HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store", **SAFE}


class JsonResponse(web.Response):
    """JSON that no cache may keep. HTTP/1.0, HEAD, and connections about to close are left to aiohttp."""

    def __init__(self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(body=body, status=status, headers=headers)
        self.code: str | None = None
        """The code of the refusal that it tells of."""
        self._bytes = body
        self._left = False

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        if not request.keep_alive or request.version != HttpVersion11 or request.method == "HEAD" or self._will_close:
            self.headers.update(_HEADERS)
            return await super().prepare(request)
        self._left = True
        writer = request.writer
        await writer.write_eof(self._whole())
        return writer

    async def _prepare_headers(self) -> None:
        """aiohttp's, but for its own name and version: it gives them to what no handler answered, too."""
        await super()._prepare_headers()
        del self.headers["Server"]

    async def write_eof(self, data: bytes = b"") -> None:
        if not self._left:
            await super().write_eof(data)

    @property
    def keep_alive(self) -> bool | None:
        return self._left or super().keep_alive

    @property
    def _will_close(self) -> bool:
        return super().keep_alive is False

    def _whole(self) -> bytes:
        own = "".join([f"{name}: {value}\r\n" for name, value in self.headers.items()])
        if own.count("\n") != len(self.headers):
            raise ValueError("a header holds a line break")
        body = self._bytes
        return b"%b%bContent-Length: %d\r\nDate: %b\r\n\r\n%b" % (
            _opening(self.status),
            own.encode(),
            len(body),
            _date(int(time())),
            body,
        )


@lru_cache
def _opening(status: int) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in _HEADERS.items())
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}".encode()


@lru_cache(maxsize=1)
def _date(seconds: int) -> bytes:
    return formatdate(seconds, usegmt=True).encode()
