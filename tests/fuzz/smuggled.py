"""Requests that hide another one: read in one of two ways, their body is a request of its own."""

from tests.fuzz.shapes import SESSION
from tests.test_walkthrough import SESSIONS

HIDDEN = b"POST %b/renew HTTP/1.1\r\nHost: a\r\nX-Request-ID: hidden\r\nContent-Length: 0\r\n\r\n" % SESSION.encode()
"""No other request here renews."""


def carrying(
    body: bytes, *headers: bytes, method: bytes = b"POST", version: bytes = b"HTTP/1.1", end: bytes = b"\r\n"
) -> bytes:
    lines = [
        b"%b %b %b" % (method, SESSIONS.encode(), version),
        b"Host: a",
        b"Content-Type: application/json",
        *headers,
    ]
    return end.join([*lines, b"", body])


ALL = b"Content-Length: %d" % len(HIDDEN)
LAST_CHUNK = b"0\r\n\r\n"
BEHIND_A_CHUNK = LAST_CHUNK + HIDDEN
ALL_BEHIND = b"Content-Length: %d" % len(BEHIND_A_CHUNK)
CHUNKED = b"Transfer-Encoding: chunked"
IN_A_CHUNK = b"%x\r\n%b\r\n%b" % (len(HIDDEN), HIDDEN, LAST_CHUNK)

NEARLY_CHUNKED = (
    *(
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding:\tchunked",
        b"Transfer-Encoding:chunked",
    ),
    *(
        b"Transfer-Encoding: chunked\x0b",
        b"Transfer-Encoding: \x0bchunked",
        b" Transfer-Encoding: chunked",
        b"Transfer-Encoding: CHUNKED",
    ),
    *(
        b"X: x\nTransfer-Encoding: chunked",
        b"X: x\rTransfer-Encoding: chunked",
        b"Transfer-Encoding\r\n: chunked",
        b"X: x\0\r\n" + CHUNKED,
    ),
    *(
        b"Transfer-Encoding:\r\n chunked",
        b"Transfer-Encoding: identity, chunked",
        b"Transfer-Encoding: chunked, identity",
        b'Transfer-Encoding: "chunked"',
    ),
    *(
        CHUNKED + b"\r\n" + b"Transfer-Encoding: cow",
        b"Transfer-Encoding: cow\r\n" + CHUNKED,
        b"Transfer_Encoding: chunked",
        CHUNKED + b";q=1",
    ),
    *(
        b"Transfer-Encoding: ,chunked",
        b"Transfer-Encoding: chunked,",
        b"TE: chunked",
        b"Transfer-Encoding: \xef\xbd\x83hunked",
        b"Transfer-Encoding\0: chunked",
    ),
    *(
        b"Connection: Transfer-Encoding\r\n" + CHUNKED,
        b"Content-Encoding: chunked",
        b"Transfer-Encoding: gzip\r\n" + CHUNKED,
    ),
)
NEARLY_A_LENGTH = (
    *(
        b"Content-Length: 0\r\n" + ALL,
        ALL + b"\r\nContent-Length: 0",
        b"Content-Length: 0, %d" % len(HIDDEN),
        b"Content-Length : %d" % len(HIDDEN),
    ),
    *(
        b"Content-Length: +%d" % len(HIDDEN),
        b"Content-Length: %d, %d" % (len(HIDDEN), len(HIDDEN)),
        b"Content-Length:\x0b%d" % len(HIDDEN),
    ),
    *(
        b"Content-Length: 0\r\n Content-Length: 9",
        b"Content-Length: 0x%x" % len(HIDDEN),
        b"Content-Length: 0%d" % len(HIDDEN),
        b"Content_Length: 9",
    ),
    *(
        b"Connection: Content-Length\r\n" + ALL,
        b"X: x\n" + ALL,
        b"X: x\r" + ALL,
        ALL + b"\0",
        b"Content-Length: -0",
        b"Content-Length:",
    ),
)
ODD_CHUNKS = (
    *(
        b"0\r\n" + HIDDEN,
        b"0\n\n" + HIDDEN,
        b"0\r\r\n\r\n" + HIDDEN,
        b"00000000000000000\r\n\r\n" + HIDDEN,
        b"0;x\n\r\n\r\n" + HIDDEN,
    ),
    *(
        b"0 \r\n\r\n" + HIDDEN,
        b" 0\r\n\r\n" + HIDDEN,
        b"0x0\r\n\r\n" + HIDDEN,
        b"-0\r\n\r\n" + HIDDEN,
        b"+0\r\n\r\n" + HIDDEN,
        b"\r\n\r\n" + HIDDEN,
    ),
    *(
        b"2;\nxx\r\n1\r\n" + IN_A_CHUNK,
        b"1\nx\n" + BEHIND_A_CHUNK,
        b"1\r\nxx\r\n" + BEHIND_A_CHUNK,
        b"1\r\nx" + BEHIND_A_CHUNK,
    ),
    *(
        b"10000000000000000\r\n" + BEHIND_A_CHUNK,
        b"FFFFFFFFFFFFFFFE\r\n" + BEHIND_A_CHUNK,
        b"100000000\r\n" + BEHIND_A_CHUNK,
    ),
    *(
        b"0\r\nContent-Length: 99\r\n\r\n" + HIDDEN,
        b"0\r\nTransfer-Encoding: chunked\r\n\r\n" + BEHIND_A_CHUNK,
        IN_A_CHUNK,
    ),
    *(
        b'1;a="\r\nx"\r\nx\r\n' + BEHIND_A_CHUNK,
        b"2_\r\nxx\r\n" + BEHIND_A_CHUNK,
        b"0\r\n\r" + HIDDEN,
        b"0\r\n\n" + HIDDEN,
    ),
)
OTHERWISE = (
    *(carrying(HIDDEN, ALL, method=method) for method in (b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE", b"PUT")),
    *(
        carrying(BEHIND_A_CHUNK, CHUNKED, version=version)
        for version in (b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2")
    ),
    *(carrying(HIDDEN, ALL, end=end) for end in (b"\n", b"\r", b"\r\r\n", b"\0\r\n", b"\x0b\r\n")),
    *(
        carrying(HIDDEN, ALL, odd)
        for odd in (
            b"Expect: 100-continue",
            b"Expect: nonsense",
            b"Upgrade: h2c\r\nConnection: upgrade",
            b"Connection: close",
        )
    ),
    *(
        carrying(HIDDEN, ALL, odd)
        for odd in (b"Upgrade: websocket\r\nConnection: upgrade", b"X: " + b"y" * 9000, b"Host: b", b"X: y\r\n\r\n")
    ),
    *(
        carrying(b"", b"Content-Length: 0", b"X: y" + end + HIDDEN[:-2])
        for end in (b"\r\r", b"\n\n", b"\0\r\n\r\n", b"\r\n\r\n")
    ),
    b"GET /livez%0d%0aX:%20y%0d%0a%0d%0aPOST HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /livez HTTP/1.1\r\n\r\n" + HIDDEN,
    b"GET /livez\r\n" + HIDDEN,
    b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n" + b"GET /livez HTTP/1.1\r\nX: " + HIDDEN,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
)
SHAPES = (
    *(carrying(BEHIND_A_CHUNK, ALL_BEHIND, odd) for odd in (CHUNKED, *NEARLY_CHUNKED)),
    *(carrying(BEHIND_A_CHUNK, odd, ALL_BEHIND) for odd in (CHUNKED, *NEARLY_CHUNKED)),
    *(carrying(BEHIND_A_CHUNK, odd) for odd in NEARLY_CHUNKED),
    *(carrying(IN_A_CHUNK, CHUNKED, b"Content-Length: 4"),),
    *(carrying(HIDDEN, odd) for odd in NEARLY_A_LENGTH),
    *(carrying(body, CHUNKED) for body in ODD_CHUNKS),
    *OTHERWISE,
)
