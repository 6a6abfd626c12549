"""Requests whose body is another request, if a server determines the end of the body differently."""

from tests.fuzz.request_parts import SESSION
from tests.test_walkthrough import SESSIONS

SMUGGLED = (
    b"POST %b/renew HTTP/1.1\r\nHost: a\r\nX-Request-ID: smuggled\r\nContent-Length: 0\r\n\r\n" % SESSION.encode()
)

FULL_LENGTH = b"Content-Length: %d" % len(SMUGGLED)
CHUNKED = b"Transfer-Encoding: chunked"
LAST_CHUNK = b"0\r\n\r\n"
INSIDE_CHUNK = b"%x\r\n%b\r\n%b" % (len(SMUGGLED), SMUGGLED, LAST_CHUNK)
AFTER_LAST_CHUNK = LAST_CHUNK + SMUGGLED
LENGTH_AFTER_LAST_CHUNK = b"Content-Length: %d" % len(AFTER_LAST_CHUNK)


def request_with(
    body: bytes, *headers: bytes, method: bytes = b"POST", version: bytes = b"HTTP/1.1", end: bytes = b"\r\n"
) -> bytes:
    """Return a request with this body. `end` terminates its lines."""
    lines = [
        b"%b %b %b" % (method, SESSIONS.encode(), version),
        b"Host: a",
        b"Content-Type: application/json",
        *headers,
    ]
    return end.join([*lines, b"", body])


# fmt: off

ALMOST_CHUNKED = (
    b"Transfer-Encoding: xchunked", b"Transfer-Encoding : chunked", b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding:chunked", b"Transfer-Encoding: chunked\x0b", b"Transfer-Encoding: \x0bchunked",
    b" Transfer-Encoding: chunked", b"Transfer-Encoding: CHUNKED", b"X: x\nTransfer-Encoding: chunked",
    b"X: x\rTransfer-Encoding: chunked", b"Transfer-Encoding\r\n: chunked", b"X: x\0\r\n" + CHUNKED,
    b"Transfer-Encoding:\r\n chunked", b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: chunked, identity", b'Transfer-Encoding: "chunked"',
    CHUNKED + b"\r\n" + b"Transfer-Encoding: cow", b"Transfer-Encoding: cow\r\n" + CHUNKED,
    b"Transfer_Encoding: chunked", CHUNKED + b";q=1", b"Transfer-Encoding: ,chunked",
    b"Transfer-Encoding: chunked,", b"TE: chunked", b"Transfer-Encoding: \xef\xbd\x83hunked",
    b"Transfer-Encoding\0: chunked", b"Connection: Transfer-Encoding\r\n" + CHUNKED,
    b"Content-Encoding: chunked", b"Transfer-Encoding: gzip\r\n" + CHUNKED,
)

ALMOST_LENGTH = (
    b"Content-Length: 0\r\n" + FULL_LENGTH, FULL_LENGTH + b"\r\nContent-Length: 0",
    b"Content-Length: 0, %d" % len(SMUGGLED),
    b"Content-Length : %d" % len(SMUGGLED), b"Content-Length: +%d" % len(SMUGGLED),
    b"Content-Length: %d, %d" % (len(SMUGGLED), len(SMUGGLED)), b"Content-Length:\x0b%d" % len(SMUGGLED),
    b"Content-Length: 0\r\n Content-Length: 9", b"Content-Length: 0x%x" % len(SMUGGLED),
    b"Content-Length: 0%d" % len(SMUGGLED), b"Content_Length: 9", b"Connection: Content-Length\r\n" + FULL_LENGTH,
    b"X: x\n" + FULL_LENGTH, b"X: x\r" + FULL_LENGTH, FULL_LENGTH + b"\0", b"Content-Length: -0", b"Content-Length:",
)

INVALID_CHUNKS = (
    b"0\r\n" + SMUGGLED, b"0\n\n" + SMUGGLED, b"0\r\r\n\r\n" + SMUGGLED, b"00000000000000000\r\n\r\n" + SMUGGLED,
    b"0;x\n\r\n\r\n" + SMUGGLED, b"0 \r\n\r\n" + SMUGGLED, b" 0\r\n\r\n" + SMUGGLED, b"0x0\r\n\r\n" + SMUGGLED,
    b"-0\r\n\r\n" + SMUGGLED, b"+0\r\n\r\n" + SMUGGLED, b"\r\n\r\n" + SMUGGLED, b"2;\nxx\r\n1\r\n" + INSIDE_CHUNK,
    b"1\nx\n" + AFTER_LAST_CHUNK, b"1\r\nxx\r\n" + AFTER_LAST_CHUNK, b"1\r\nx" + AFTER_LAST_CHUNK,
    b"10000000000000000\r\n" + AFTER_LAST_CHUNK, b"FFFFFFFFFFFFFFFE\r\n" + AFTER_LAST_CHUNK,
    b"100000000\r\n" + AFTER_LAST_CHUNK, b"0\r\nContent-Length: 99\r\n\r\n" + SMUGGLED,
    b"0\r\nTransfer-Encoding: chunked\r\n\r\n" + AFTER_LAST_CHUNK, INSIDE_CHUNK,
    b'1;a="\r\nx"\r\nx\r\n' + AFTER_LAST_CHUNK, b"2_\r\nxx\r\n" + AFTER_LAST_CHUNK, b"0\r\n\r" + SMUGGLED,
    b"0\r\n\n" + SMUGGLED,
)

OTHER_REQUESTS = (
    *(
        request_with(SMUGGLED, FULL_LENGTH, method=method)
        for method in (b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE", b"PUT")
    ),
    *(
        request_with(AFTER_LAST_CHUNK, CHUNKED, version=version)
        for version in (b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2")
    ),
    *(
        request_with(SMUGGLED, FULL_LENGTH, end=end)
        for end in (b"\n", b"\r", b"\r\r\n", b"\0\r\n", b"\x0b\r\n")
    ),
    *(
        request_with(SMUGGLED, FULL_LENGTH, header)
        for header in (b"Expect: 100-continue", b"Expect: nonsense", b"Connection: close",
                       b"Upgrade: h2c\r\nConnection: upgrade")
    ),
    *(
        request_with(SMUGGLED, FULL_LENGTH, header)
        for header in (b"Upgrade: websocket\r\nConnection: upgrade", b"X: " + b"y" * 9000, b"Host: b", b"X: y\r\n\r\n")
    ),
    *(
        request_with(b"", b"Content-Length: 0", b"X: y" + end + SMUGGLED[:-2])
        for end in (b"\r\r", b"\n\n", b"\0\r\n\r\n", b"\r\n\r\n")
    ),
    b"GET /livez%0d%0aX:%20y%0d%0a%0d%0aPOST HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /livez HTTP/1.1\r\n\r\n" + SMUGGLED, b"GET /livez\r\n" + SMUGGLED,
    b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n" + b"GET /livez HTTP/1.1\r\nX: " + SMUGGLED,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED,
)

# fmt: on

SMUGGLED_REQUESTS = (
    *(request_with(AFTER_LAST_CHUNK, LENGTH_AFTER_LAST_CHUNK, header) for header in (CHUNKED, *ALMOST_CHUNKED)),
    *(request_with(AFTER_LAST_CHUNK, header, LENGTH_AFTER_LAST_CHUNK) for header in (CHUNKED, *ALMOST_CHUNKED)),
    *(request_with(AFTER_LAST_CHUNK, header) for header in ALMOST_CHUNKED),
    request_with(INSIDE_CHUNK, CHUNKED, b"Content-Length: 4"),
    *(request_with(SMUGGLED, header) for header in ALMOST_LENGTH),
    *(request_with(body, CHUNKED) for body in INVALID_CHUNKS),
    *OTHER_REQUESTS,
)
