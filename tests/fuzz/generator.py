"""Generate inputs from a seed: the same seed and number always give the same bytes."""

import gzip
import os
import zlib
from collections.abc import Callable
from random import Random

from tests.fuzz.raw_client import Input
from tests.fuzz.request_parts import BODIES, FRAMINGS, HEADERS, LINE_ENDS, METHODS, REQUESTS, TARGETS, VERSIONS

API_KEY = "ssk_key-of-the-fuzz-test"
COMMON_HEADERS = b"Host: sessions.example\r\nX-API-KEY: " + API_KEY.encode()
LAST_REQUEST = b"GET /livez HTTP/1.1\r\nHost: last\r\nConnection: close\r\n\r\n"
"""The end of every input. The service closes the connection after it, unless it is part of an earlier request."""

MAX_PIECES = 12

FUZZ_SEED = os.environ.get("FUZZ_SEED", "0")
FUZZ_INPUTS = int(os.environ.get("FUZZ_INPUTS", "300"))


def input_of(number: int) -> Input:
    random = Random(f"{FUZZ_SEED}/{number}")
    generate = random.choices(list(_GENERATORS), list(_GENERATORS.values()))[0]
    return Input(_pieces_of(generate(random) + LAST_REQUEST, random), disconnects=random.random() < 0.05)


def valid_requests_of(number: int) -> bytes:
    """Return pipelined valid requests. The service closes the connection after the last one."""
    random = Random(f"{FUZZ_SEED}/{number}")
    return b"".join(_valid_request(random) for _ in range(random.randint(1, 6))) + LAST_REQUEST


def _random_bytes(random: Random) -> bytes:
    return random.randbytes(random.randint(1, 2000))


def _valid_request(random: Random) -> bytes:
    method, target, json_body = random.choice(REQUESTS)
    lines = [f"{method} {target} HTTP/1.1".encode(), COMMON_HEADERS]
    body = json_body.encode()
    if body:
        lines.append(b"Content-Type: application/json")
        body, framing = _chunked(body, random) if random.random() < 0.3 else (body, b"Content-Length: %d" % len(body))
        lines.append(framing)
    return b"\r\n".join([*lines, b"", body])


def _chunked(body: bytes, random: Random) -> tuple[bytes, bytes]:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in _pieces_of(body, random))
    return chunks + b"0\r\n\r\n", b"Transfer-Encoding: chunked"


def _damaged_requests(random: Random) -> bytes:
    content = bytearray(b"".join(_valid_request(random) for _ in range(random.randint(1, 2))))
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        random.choice(_DAMAGES)(content, random)
    return bytes(content)


def _change_byte(content: bytearray, random: Random) -> None:
    content[random.randrange(len(content))] = random.randrange(256)


def _insert(content: bytearray, random: Random) -> None:
    at = random.randrange(len(content))
    content[at:at] = random.choice((b"\0", b"\r", b"\n", b" ", b"\t", b":", b"\xff", b"%", b"\r\n\r\n", b"a" * 9000))


def _remove(content: bytearray, random: Random) -> None:
    at = random.randrange(len(content))
    del content[at : min(at + random.randint(1, 20), len(content) - 1)]


def _repeat(content: bytearray, random: Random) -> None:
    start, end = sorted(random.choices(range(len(content)), k=2))
    content[end:end] = content[start:end]


def _malformed_request(random: Random) -> bytes:
    """Return a request with one or two unusual parts. Some of them are valid."""
    method, target, body = (part.encode() for part in random.choice(REQUESTS))
    version, end, framing = b"HTTP/1.1", b"\r\n", b"Content-Length: %d" % len(body)
    more_headers: list[bytes] = []
    for part in random.choices(list(_UNUSUAL_PARTS), list(_UNUSUAL_PARTS.values()), k=random.choice((1, 1, 2))):
        match part:
            case "method":
                method = random.choice(METHODS)
            case "target":
                target = random.choice(TARGETS)
            case "version":
                version = random.choice(VERSIONS)
            case "line end":
                end = random.choice(LINE_ENDS)
            case "body":
                body = random.choice(BODIES)
                framing = random.choice((b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked"))
            case "framing":
                framing = random.choice(FRAMINGS)
            case "headers":
                more_headers += random.choices(HEADERS, k=random.choice((1, 1, 2, 3)))
    headers = [COMMON_HEADERS, b"Content-Type: application/json", framing, *more_headers]
    random.shuffle(headers)
    return end.join([b" ".join((method, target, version)), *headers, b"", body])


def _compressed_request(random: Random) -> bytes:
    """Return a request with a Content-Encoding. Its body may be truncated, or 10 MB large after decompression."""
    encoding, compress = random.choice(
        ((b"gzip", gzip.compress), (b"deflate", zlib.compress), (b"br", bytes), (b"zstd", bytes))
    )
    body = compress(random.choice((b"{}", b'{"a":"' + b"x" * 10_000_000, b"", b"\xff" * 100_000)))
    body = body[: random.randint(0, len(body))] if random.random() < 0.3 else body
    _, target, _ = REQUESTS[0]
    lines = [
        b"POST %b HTTP/1.1" % target.encode(),
        COMMON_HEADERS,
        b"Content-Type: application/json",
        b"Content-Encoding: " + encoding,
    ]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])


def _pipelined_requests(random: Random) -> bytes:
    return b"".join(_valid_request(random) for _ in range(random.randint(2, 40)))


def _truncated_requests(random: Random) -> bytes:
    content = random.choice((_valid_request, _malformed_request, _pipelined_requests))(random)
    return content[: random.randrange(len(content) + 1)]


def _other_protocol(random: Random) -> bytes:
    """Return the start of HTTP/2, TLS, the PROXY protocol, Redis or SSH, or empty lines."""
    return random.choice(
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            bytes.fromhex("16030100a5010000a10303") + random.randbytes(160),
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + _valid_request(random),
            bytes.fromhex("0d0a0d0a000d0a515549540a2111000c") + random.randbytes(12) + _valid_request(random),
            b"*1\r\n$4\r\nPING\r\n",
            b"SSH-2.0-OpenSSH_9.9\r\n",
            b"GET /livez\r\n",
            b"\r\n" * random.randint(1, 3000) + _valid_request(random),
            b" " * random.randint(1, 3000),
            b"\0" * random.randint(1, 3000),
        )
    )


def _pieces_of(content: bytes, random: Random) -> list[bytes]:
    cuts = sorted(random.sample(range(len(content) + 1), random.randrange(min(MAX_PIECES, len(content) + 1))))
    pieces = [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    return [piece for piece in pieces if piece]


_DAMAGES: tuple[Callable[[bytearray, Random], None], ...] = (_change_byte, _change_byte, _insert, _remove, _repeat)

_UNUSUAL_PARTS = {"method": 1, "target": 3, "version": 1, "line end": 1, "body": 3, "framing": 3, "headers": 6}
"""The weight of each part."""

_GENERATORS: dict[Callable[[Random], bytes], int] = {
    _random_bytes: 5,
    _damaged_requests: 30,
    _malformed_request: 40,
    _compressed_request: 4,
    _pipelined_requests: 8,
    _truncated_requests: 10,
    _other_protocol: 3,
}
"""The weight of each generator."""
