"""What a connection was answered, read as strictly as a client could that trusts nobody."""

import json
import re
from typing import NamedTuple

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5]\d\d) [A-Za-z -]+\r\n|HTTP/1\.0 ([1-5]\d\d) [A-Za-z -]+\r\n")
_HEADER = re.compile(rb"([A-Za-z0-9-]+): ([\x20-\x7e]*)\r\n")
_LENGTH = re.compile(rb"[0-9]{1,9}")
_LAST_CHUNK = b"0\r\n\r\n"


class NotHTTP(Exception):  # noqa: N818  (it is what was found, not a fault of the finder)
    """What came back is no sequence of whole HTTP/1 answers."""


class Answer(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def code(self) -> str:
        """Of a refusal. Raises NotHTTP where one has none."""
        try:
            code: str = json.loads(self.body)["code"]
        except (ValueError, KeyError, TypeError):
            raise NotHTTP(f"a refusal in other words than ours: {self.status} {self.body[:200]!r}") from None
        return code


def answers_in(received: bytes, *, some_have_no_body: bool) -> list[Answer]:
    """All of them, those to an `Expect` too. Raises NotHTTP.

    An answer to HEAD tells of a body and has none: it is taken for one where `some_have_no_body`, and the next begins.
    """
    answers = []
    while received:
        answer, received = _first_of(received, some_have_no_body)
        answers.append(answer)
    return answers


def _first_of(received: bytes, may_have_no_body: bool) -> tuple[Answer, bytes]:
    line = _STATUS_LINE.match(received)
    if not line:
        raise NotHTTP(f"no status line: {received[:200]!r}")
    status = int(line[1] or line[2])
    headers, rest = _headers_of(received[line.end() :])
    if status < 200 or status in (204, 304) or (may_have_no_body and (not rest or rest.startswith(b"HTTP/1."))):
        return Answer(status, headers, b""), rest
    body, rest = _body_of(headers, rest)
    return Answer(status, headers, body), rest


def _headers_of(received: bytes) -> tuple[dict[bytes, bytes], bytes]:
    headers: dict[bytes, bytes] = {}
    while not received.startswith(b"\r\n"):
        header = _HEADER.match(received)
        if not header or header[1].lower() in headers:
            raise NotHTTP(f"no header, or one that was there before: {received[:200]!r}")
        headers[header[1].lower()] = header[2]
        received = received[header.end() :]
    return headers, received[2:]


def _body_of(headers: dict[bytes, bytes], received: bytes) -> tuple[bytes, bytes]:
    if headers.get(b"transfer-encoding") == b"chunked" and received.startswith(_LAST_CHUNK):
        return b"", received[len(_LAST_CHUNK) :]  # what aiohttp says to a range that a file has not
    length = headers.get(b"content-length", b"none")
    if not _LENGTH.fullmatch(length) or int(length) > len(received):
        raise NotHTTP(f"a body that is not there: {headers} {received[:200]!r}")
    return received[: int(length)], received[int(length) :]
