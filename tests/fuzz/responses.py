"""A strict parser of the HTTP/1 responses on one connection."""

import json
import re
from typing import NamedTuple

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5]\d\d) [A-Za-z -]+\r\n|HTTP/1\.0 ([1-5]\d\d) [A-Za-z -]+\r\n")
_HEADER = re.compile(rb"([A-Za-z0-9-]+): ([\x20-\x7e]*)\r\n")
_LENGTH = re.compile(rb"[0-9]{1,9}")
_LAST_CHUNK = b"0\r\n\r\n"


class InvalidResponse(Exception):  # noqa: N818
    """The received bytes are not complete HTTP/1 responses, or an error has no code."""


class Response(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def code(self) -> str:
        """The code of an error. Raises InvalidResponse."""
        try:
            code: str = json.loads(self.body)["code"]
        except (ValueError, KeyError, TypeError):
            raise InvalidResponse(f"an error without a code: {self.status} {self.body[:200]!r}") from None
        return code


def parse_responses(received: bytes, *, allow_missing_bodies: bool) -> list[Response]:
    """Return all responses, including informational ones. Raises InvalidResponse.

    A response to HEAD has a Content-Length but no body. `allow_missing_bodies` accepts it if the next response
    follows, or nothing.
    """
    responses = []
    while received:
        response, received = _parse_first(received, allow_missing_bodies)
        responses.append(response)
    return responses


def _parse_first(received: bytes, allow_missing_body: bool) -> tuple[Response, bytes]:
    line = _STATUS_LINE.match(received)
    if not line:
        raise InvalidResponse(f"no status line: {received[:200]!r}")
    status = int(line[1] or line[2])
    headers, rest = _parse_headers(received[line.end() :])
    if status < 200 or status in (204, 304) or (allow_missing_body and (not rest or rest.startswith(b"HTTP/1."))):
        return Response(status, headers, b""), rest
    body, rest = _parse_body(headers, rest)
    return Response(status, headers, body), rest


def _parse_headers(received: bytes) -> tuple[dict[bytes, bytes], bytes]:
    headers: dict[bytes, bytes] = {}
    while not received.startswith(b"\r\n"):
        header = _HEADER.match(received)
        if not header or header[1].lower() in headers:
            raise InvalidResponse(f"an invalid or repeated header: {received[:200]!r}")
        headers[header[1].lower()] = header[2]
        received = received[header.end() :]
    return headers, received[2:]


def _parse_body(headers: dict[bytes, bytes], received: bytes) -> tuple[bytes, bytes]:
    if headers.get(b"transfer-encoding") == b"chunked" and received.startswith(_LAST_CHUNK):
        return b"", received[len(_LAST_CHUNK) :]  # aiohttp's response to an unsatisfiable range of a file
    length = headers.get(b"content-length", b"none")
    if not _LENGTH.fullmatch(length) or int(length) > len(received):
        raise InvalidResponse(f"an incomplete body: {headers} {received[:200]!r}")
    return received[: int(length)], received[int(length) :]
