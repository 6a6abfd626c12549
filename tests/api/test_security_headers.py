"""All responses have security headers, and none names the server software."""

import pytest

from tests.api.raw_http import LAST_LIVEZ, exchange
from tests.conftest import AGENT, USER, HttpClient
from tests.test_walkthrough import SESSIONS, open_session

BODY = f'{{"agentId":"{AGENT}","userId":"{USER}"}}'.encode()
CREATE = (
    f"POST {SESSIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(BODY)}\r\n\r\n"
).encode() + BODY

REQUESTS = {
    "probe": b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "list": f"GET {SESSIONS} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
    "creation": CREATE,
    "HTTP/1.0": b"GET /livez HTTP/1.0\r\n\r\n",
    "HEAD": b"HEAD /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "Connection: close": b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "unknown session": f"GET {SESSIONS}/x HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
    "unknown path": b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "unknown path in HTTP/1.0": b"GET /nowhere HTTP/1.0\r\n\r\n",
    "wrong method": b"TRACE /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "unknown expectation": b"GET /livez HTTP/1.1\r\nHost: localhost\r\nExpect: nothing\r\n\r\n",
    "no HTTP": b"nonsense\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "metrics": b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "document": b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "page": b"GET /docs HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HEAD of the page": b"HEAD /docs HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "file": b"GET /docs/swagger-ui.css HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "range of a file": b"GET /docs/swagger-ui.css HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-1\r\n\r\n",
    "invalid range": b"GET /docs/swagger-ui.css HTTP/1.1\r\nHost: localhost\r\nRange: bytes=9999999-\r\n\r\n",
}

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest.mark.parametrize("request_bytes", REQUESTS.values(), ids=REQUESTS)
async def test_a_response_has_security_headers_and_no_server_name(service: HttpClient, request_bytes: bytes) -> None:
    received = await exchange(service, request_bytes + LAST_LIVEZ)
    head = received.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    (policy,) = [line for line in head if line.startswith("Content-Security-Policy: ")]

    assert head[0].startswith("HTTP/1.")
    assert head.count("X-Content-Type-Options: nosniff") == 1
    assert head.count("X-Frame-Options: DENY") == 1
    assert head.count("Referrer-Policy: no-referrer") == 1
    assert head.count("Cross-Origin-Resource-Policy: same-origin") == 1
    assert policy.startswith("Content-Security-Policy: default-src 'none'; ")
    assert policy.endswith("; frame-ancestors 'none'")
    assert [line for line in head if line.lower().startswith(("server:", "x-powered-by:", "via:"))] == []
    assert "aiohttp" not in "".join(head).lower()
    assert "python" not in "".join(head).lower()


async def test_a_session_must_not_be_cached_or_run_scripts(service: HttpClient) -> None:
    session_id = await open_session(service)

    response = await service.get(f"{SESSIONS}/{session_id}")

    assert response.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert response.headers["Cache-Control"] == "no-store"


async def test_metrics_must_not_be_cached(service: HttpClient) -> None:
    response = await service.get("/metrics")

    assert response.headers["Cache-Control"] == "no-store"
