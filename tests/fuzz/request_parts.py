"""Valid and invalid parts of requests."""

from tests.conftest import AGENT, USER
from tests.test_walkthrough import SESSIONS

UNKNOWN_ID = "4716d2ea-673d-47d0-b1bd-33202db7411b"
SESSION = f"{SESSIONS}/{UNKNOWN_ID}"
POLICY = f"/api/messaging/agents/{AGENT}/timeout"

CREATION = (
    f'{{"agentId":"{AGENT}","userId":"{USER}","metadata":{{"channel":"web"}},"timeoutConfig":{{"timeoutMinutes":30}}}}'
)

# fmt: off

REQUESTS: tuple[tuple[str, str, str], ...] = (
    ("POST", SESSIONS, CREATION), ("GET", SESSION, ""), ("HEAD", SESSION, ""),
    ("POST", f"{SESSION}/heartbeat", ""), ("POST", f"{SESSION}/renew", ""),
    ("PATCH", f"{SESSION}/timeout", '{"timeoutMinutes":60}'),
    ("PATCH", f"{SESSION}/metadata", '{"channel":null,"topic":"weather"}'), ("DELETE", SESSION, ""),
    ("GET", f"{SESSIONS}?limit=2", ""), ("GET", f"{SESSIONS}?userId={USER}&nearExpiration=true", ""),
    ("DELETE", f"{SESSIONS}?userId={UNKNOWN_ID}", ""), ("PUT", POLICY, '{"timeoutMinutes":60}'),
    ("GET", POLICY, ""), ("DELETE", POLICY, ""), ("GET", f"{SESSIONS}/health", ""), ("GET", "/livez", ""),
    ("GET", "/readyz", ""), ("GET", "/metrics", ""), ("GET", "/openapi.json", ""), ("GET", "/docs", ""),
    ("GET", "/docs/favicon-32x32.png", ""), ("OPTIONS", SESSIONS, ""),
)
"""The method, target and body of valid requests."""

METHODS: tuple[bytes, ...] = (
    b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT", b"PRI", b"get",
    b"", b"G\0T", b"M-SEARCH", b"\xff", b"A" * 300, b"GET ", b" GET",
)

TARGETS = (
    b"*", b"", b"/", b"//", b"///", b"/.", b"/..", b"/../../etc/passwd", b"/a b", b"?", b"#", b"/#a",
    b"livez", b"/livez/", b"/livez?", b"/livez;a=b", b"/%6cive%7a", b"/livez%00", b"/livez%0d%0aX:%20y",
    b"/%", b"/%zz", b"/%ff", b"/\xff", b"http://other/livez", b"http://u:p@h/livez", b"http://[::1]/livez",
    b"http://[::1/livez", b"http://h:99999/livez", b"https://h/livez", b"http:", b"http://", b"http:///livez",
    b"//h/livez", b"h:443", b"/[", b"/\\", b"/^", b"/\x7f",
    *(
        f"{SESSIONS}{end}".encode()
        for end in ("/", "//", "/%2e%2e", "/..%2f..", "/%25", "/a%2fheartbeat", "/%00", "/\ud7ff")
    ),
    *(
        f"{SESSIONS}?{query}".encode()
        for query in ("a", "=", "&", "limit=1&limit=1", "%ff=%ff", "limit=%00", "cursor=AAAA")
    ),
    *(b"/" + b"a" * length for length in (8000, 8190, 8191, 9000, 70_000)),
    *(f"{SESSIONS}?cursor={'A' * length}".encode() for length in (4000, 8100)),
)

VERSIONS = (
    b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"HTTP/11", b"HTTP/1.", b"http/1.1", b"",
    b"ICE/1.0",
)

LINE_ENDS = (
    b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\0\r\n", b" \r\n", b"\t\r\n", b"\x0b\r\n", b"\x85\r\n",
)

HEADERS = (
    b"Host: other", b"Host:", b"Host: a b", b"Host: a\0", b"Host: [::1", b"Host: a:99999", b"Host: \xff",
    b"Host: a,b", b"Connection: close", b"Connection: keep-alive", b"Connection: keep-alive, close",
    b"Connection: Host", b"Connection: ,,", b"Expect: 100-continue", b"Expect: 100-Continue, 200-ok",
    b"Expect:", b"Expect: \xff", b"Upgrade: h2c", b"Upgrade: websocket", b"Connection: upgrade",
    b"Sec-WebSocket-Key1: a", b"HTTP2-Settings: AAMAAABk", b"Content-Type: application/json;charset=utf-16",
    b"Content-Type: \xff", b"Content-Type:", b"Content-Type: application/json;" * 9,
    b"Content-Type: multipart/form-data; boundary=\0", b"Content-Type: application/x-www-form-urlencoded",
    b"Content-Encoding: gzip", b"Content-Encoding: deflate", b"Content-Encoding: br",
    b"Content-Encoding: zstd", b"Content-Encoding: gzip, gzip", b"Content-Encoding: nothing",
    b"Accept-Encoding: \xff", b"TE: trailers", b"Trailer: Host", b"X-Request-ID: " + b"a" * 128,
    b"X-Request-ID: a\tb", b"X-Request-ID: \xff", b"X-Request-ID:", b"traceparent: 00-zz", b"X-API-KEY: \xff",
    b"X-API-KEY:", b"X-API-KEY: " + b"k" * 8000, b"Authorization: Bearer",
    b"Authorization: Bearer \xff.\xff.\xff", b"Authorization: Bearer eyJhbGciOiJub25lIn0.e30.",
    b"Authorization: Basic Og==", b"Authorization: Bearer W10.e30.AA",
    b"Authorization: Bearer eyJhbGciOlsxXX0.e30.AA", b"Authorization: bearer " + b"." * 5000,
    b"Cookie: " + b"\xff=;" * 50, b"Range: bytes=0-0", b"Range: bytes=9-1", b"Range: bytes=-0",
    b"Range: \xff", b"If-Range: \xff", b"If-Match: *", b'If-Match: "0"', b'If-Match: W/"0", "1',
    b"If-Match: \xff", b"If-None-Match: *", b'If-None-Match: "\xff',
    b"If-Modified-Since: Sat, 99 Oct 99999 19:43:31 GMT",
    b"If-Unmodified-Since: Sat, 31 Dec 9999 23:59:59 -9999", b"Idempotency-Key: a", b'Idempotency-Key: "a"',
    b"Idempotency-Key:", b"Idempotency-Key: \xff", b"Idempotency-Key: " + b"k" * 256,
    b"Origin: https://chat.example", b"Origin: null", b"Origin: \xff",
    b"Access-Control-Request-Method: PATCH", b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-For: ,,\xff,",
    b"X-Forwarded-For: " + b"1.1.1.1," * 900, b"Forwarded: for=\xff", b" X: folded", b"\tX: folded",
    b"X : blank", b": no name", b"no colon", b"X\0: nul", b"X: \0", b"X: \x01", b"X\xff: y", b"\xff",
    b"X: a\rY: b", b"X: a\nY: b", b"X: a\r\n b", b"X" * 9000 + b": y", b"X: " + b"y" * 9000, b"\r\nX: y",
    *(b"\r\n".join(b"X-%d: y" % number for number in range(count)) for count in (90, 127, 200, 2000)),
)

FRAMINGS = (
    b"Content-Length: 0", b"Content-Length: 1", b"Content-Length: 5", b"Content-Length: 70000",
    b"Content-Length: 99999999999", b"Content-Length: 18446744073709551617", b"Content-Length: -1",
    b"Content-Length: +2", b"Content-Length: 0x2", b"Content-Length: ", b"Content-Length: 2, 2",
    b"Content-Length: 2\r\nContent-Length: 2", b"Content-Length: 2\r\nContent-Length: 3",
    b"Content-Length: 2 2", b"Content-Length : 2", b"Content-Length:\t2", b"Content-Length: 2\x0b",
    b"Content-Length: \xc2\xb2", b"Content-Length: 1_0", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: Chunked", b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: gzip",
    b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity", b"Transfer-Encoding:", b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding : chunked", b"Transfer-Encoding:\tchunked", b"Transfer-Encoding: chunked\x0b",
    b"Transfer-Encoding:\r\n chunked", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    b"Transfer_Encoding: chunked", b"Content-Length: 5\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: 5", b"Transfer-Encoding: \xef\xbd\x83hunked",
)
"""At most one of them matches the body."""

BODIES = (
    b"", b"{}", b"null", b"[]", b'{"a":', b"\xff", b"\0", b"x" * 70_000, b"[" * 60_000, b'{"a":' * 9000,
    b'{"a":1e999}', b'{"metadata":{"a":' + b"9" * 5000 + b"}}", b'{"a":"\\ud800"}', b'{"__proto__":{}}',
    b'{"":""}', b"1" * 60_000, b"2\r\n{}\r\n0\r\n\r\n", b"2\n{}\n0\n\n", b"2;a=b\r\n{}\r\n0\r\n\r\n",
    b"2\r\n{}\r\n0\r\nHost: b\r\nX: y\r\n\r\n", b"zz\r\n{}\r\n0\r\n\r\n", b"-2\r\n{}\r\n",
    b"0x2\r\n{}\r\n0\r\n\r\n", b"2\r\n{}XX0\r\n\r\n", b"2\r\n{}\r\n0\r\n", b"00002\r\n{}\r\n0\r\n\r\n",
    b"FFFFFFFFFFFFFFFFF\r\n{}\r\n", b"7FFFFFFFFFFFFFFF\r\n{}\r\n", b"2\r\n{", b"2 \r\n{}\r\n0\r\n\r\n",
    b"2;" + b"e" * 20_000 + b"\r\n{}", b"1\r\nx\r\n" * 9000 + b"0\r\n\r\n",
    b"0\r\n" + b"T: y\r\n" * 2000 + b"\r\n", b"11170\r\n" + b"x" * 70_000 + b"\r\n0\r\n\r\n",
)
"""Some of them are chunked."""
