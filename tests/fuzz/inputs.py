"""Inputs made of a seed: the same seed, the same bytes, so a number that is told is a fault that can be had again."""

import gzip
import os
import zlib
from collections.abc import Callable
from random import Random

from tests.fuzz.shapes import BODIES, CALLS, FRAMINGS, HEADERS, LINE_ENDS, METHODS, TARGETS, VERSIONS
from tests.fuzz.talk import Input

KEY = "ssk_of-those-who-try-everything"
HEAD = b"Host: sessions.example\r\nX-API-KEY: " + KEY.encode()
LAST = b"GET /livez HTTP/1.1\r\nHost: last\r\nConnection: close\r\n\r\n"
"""What every input ends in. Unless it is taken for a part of what went before, the connection ends with its answer."""

MOST_PIECES = 12


SEED = os.environ.get("FUZZ_SEED", "0")
NUMBER = int(os.environ.get("FUZZ_INPUTS", "600"))


def input_of(number: int) -> Input:
    rnd = Random(f"{SEED}/{number}")
    make = rnd.choices(list(_MAKERS), list(_MAKERS.values()))[0]
    return Input(_pieces_of(make(rnd) + LAST, rnd), leaves=rnd.random() < 0.05)


def requests_of(number: int) -> bytes:
    """Some calls as they should be, one behind the other, for a connection that is closed after them."""
    rnd = Random(f"{SEED}/{number}")
    return b"".join(_call(rnd) for _ in range(rnd.randint(1, 6))) + LAST


def _noise(rnd: Random) -> bytes:
    return rnd.randbytes(rnd.randint(1, 2000))


def _call(rnd: Random) -> bytes:
    """As it should be, with its body in one of the two ways."""
    method, target, body = rnd.choice(CALLS)
    lines = [f"{method} {target} HTTP/1.1".encode(), HEAD]
    sent = body.encode()
    if sent:
        lines.append(b"Content-Type: application/json")
        sent, framing = _in_chunks(sent, rnd) if rnd.random() < 0.3 else (sent, b"Content-Length: %d" % len(sent))
        lines.append(framing)
    return b"\r\n".join([*lines, b"", sent])


def _in_chunks(body: bytes, rnd: Random) -> tuple[bytes, bytes]:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in _pieces_of(body, rnd))
    return chunks + b"0\r\n\r\n", b"Transfer-Encoding: chunked"


def _damaged(rnd: Random) -> bytes:
    """A call or two with some bytes changed, put in, left out, doubled or moved."""
    sent = bytearray(b"".join(_call(rnd) for _ in range(rnd.randint(1, 2))))
    for _ in range(rnd.choice((1, 1, 1, 2, 5))):
        rnd.choice(_DAMAGES)(sent, rnd)
    return bytes(sent)


def _change(sent: bytearray, rnd: Random) -> None:
    sent[rnd.randrange(len(sent))] = rnd.randrange(256)


def _put_in(sent: bytearray, rnd: Random) -> None:
    at = rnd.randrange(len(sent))
    sent[at:at] = rnd.choice((b"\0", b"\r", b"\n", b" ", b"\t", b":", b"\xff", b"%", b"\r\n\r\n", b"a" * 9000))


def _leave_out(sent: bytearray, rnd: Random) -> None:
    at = rnd.randrange(len(sent))
    del sent[at : min(at + rnd.randint(1, 20), len(sent) - 1)]


def _double(sent: bytearray, rnd: Random) -> None:
    start, end = sorted(rnd.choices(range(len(sent)), k=2))
    sent[end:end] = sent[start:end]


def _ill_made(rnd: Random) -> bytes:
    """A request of parts of which one or two may be wrong, or merely odd."""
    method, target, body = (part.encode() for part in rnd.choice(CALLS))
    version, end, sent, framing, odd = b"HTTP/1.1", b"\r\n", body, b"Content-Length: %d" % len(body), []
    for part in rnd.choices(
        ("method", "target", "version", "end", "body", "framing", "headers"), _ODD, k=rnd.choice((1, 1, 2))
    ):
        match part:
            case "method":
                method = rnd.choice(METHODS)
            case "target":
                target = rnd.choice(TARGETS)
            case "version":
                version = rnd.choice(VERSIONS)
            case "end":
                end = rnd.choice(LINE_ENDS)
            case "body":
                sent = rnd.choice(BODIES)
                framing = rnd.choice((b"Content-Length: %d" % len(sent), b"Transfer-Encoding: chunked"))
            case "framing":
                framing = rnd.choice(FRAMINGS)
            case "headers":
                odd += rnd.choices(HEADERS, k=rnd.choice((1, 1, 2, 3)))
    headers = [HEAD, b"Content-Type: application/json", framing, *odd]
    rnd.shuffle(headers)
    return end.join([b" ".join((method, target, version)), *headers, b"", sent])


def _encoded(rnd: Random) -> bytes:
    """A body that says it is compressed, and may be: to a thousand times its size, or into nothing that opens."""
    encoding, compress = rnd.choice(
        ((b"gzip", gzip.compress), (b"deflate", zlib.compress), (b"br", bytes), (b"zstd", bytes))
    )
    body = compress(rnd.choice((b"{}", b'{"a":"' + b"x" * 10_000_000, b"", b"\xff" * 100_000)))
    body = body[: rnd.randint(0, len(body))] if rnd.random() < 0.3 else body
    _, target, _ = CALLS[0]
    lines = [
        b"POST %b HTTP/1.1" % target.encode(),
        HEAD,
        b"Content-Type: application/json",
        b"Content-Encoding: " + encoding,
    ]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])


def _pipelined(rnd: Random) -> bytes:
    return b"".join(_call(rnd) for _ in range(rnd.randint(2, 40)))


def _cut_short(rnd: Random) -> bytes:
    whole = rnd.choice((_call, _ill_made, _pipelined))(rnd)
    return whole[: rnd.randrange(len(whole) + 1)]


def _others(rnd: Random) -> bytes:
    """Other protocols, and what comes before a request."""
    return rnd.choice(
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            bytes.fromhex("16030100a5010000a10303") + rnd.randbytes(160),
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + _call(rnd),
            bytes.fromhex("0d0a0d0a000d0a515549540a2111000c") + rnd.randbytes(12) + _call(rnd),
            b"*1\r\n$4\r\nPING\r\n",
            b"SSH-2.0-OpenSSH_9.9\r\n",
            b"GET /livez\r\n",
            b"\r\n" * rnd.randint(1, 3000) + _call(rnd),
            b" " * rnd.randint(1, 3000),
            b"\0" * rnd.randint(1, 3000),
        )
    )


def _pieces_of(sent: bytes, rnd: Random) -> list[bytes]:
    cuts = sorted(rnd.sample(range(len(sent) + 1), rnd.randrange(min(MOST_PIECES, len(sent) + 1))))
    pieces = [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    return [piece for piece in pieces if piece]


_DAMAGES: tuple[Callable[[bytearray, Random], None], ...] = (_change, _change, _put_in, _leave_out, _double)
_ODD = (1, 3, 1, 1, 3, 3, 6)
"""How often each part is the odd one."""
_MAKERS: dict[Callable[[Random], bytes], int] = {
    _noise: 5,
    _damaged: 30,
    _ill_made: 40,
    _encoded: 4,
    _pipelined: 8,
    _cut_short: 10,
    _others: 3,
}
"""And how often each is to be had."""
