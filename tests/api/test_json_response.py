"""Responses in a single write, and responses that aiohttp sends, are the same for a client."""

import re

import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpClient

from service.api.server.json_response import JsonResponse
from tests.api.raw_http import exchange
from tests.conftest import HttpClient

NOT_FOUND = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"
CLOSING_LIVEZ = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_a_response_has_a_length_a_type_and_a_date(service: HttpClient) -> None:
    head, _, rest = (await exchange(service, NOT_FOUND + CLOSING_LIVEZ)).partition(b"\r\n\r\n")

    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 404 Not Found"
    assert "Content-Type: application/json" in lines
    assert any(re.fullmatch(r"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", line) for line in lines)
    length = int(next(line for line in lines if line.startswith("Content-Length")).split()[1])
    assert rest[length:].startswith(b"HTTP/1.1 200 OK\r\n")


async def test_pipelined_requests_are_answered_in_order(service: HttpClient) -> None:
    received = await exchange(service, NOT_FOUND * 50 + CLOSING_LIVEZ)

    assert received.count(b"HTTP/1.1 404 Not Found") == 50
    assert received.endswith(b'{"status":"alive"}')


async def test_the_response_to_head_has_the_length_of_get_and_no_body(service: HttpClient) -> None:
    get = await service.get("/readyz")
    head = await service.head("/readyz")

    assert (head.status, head.headers["Content-Length"]) == (200, get.headers["Content-Length"])
    assert await head.read() == b""


@pytest.mark.parametrize("sent", [b"GET /livez HTTP/1.0\r\n\r\n", CLOSING_LIVEZ], ids=["HTTP/1.0", "Connection: close"])
async def test_the_service_closes_the_connection_if_the_client_asks_for_it(service: HttpClient, sent: bytes) -> None:
    received = await exchange(service, sent)

    assert received.count(b"HTTP/1.") == 1
    assert received.endswith(b'{"status":"alive"}')


@pytest.mark.asyncio(loop_scope="function")
async def test_a_forced_close_is_announced_and_ends_the_connection(aiohttp_client: AiohttpClient) -> None:
    async def handle(_: web.Request) -> JsonResponse:
        response = JsonResponse(b"{}")
        response.force_close()
        return response

    app = web.Application()
    app.router.add_get("/last", handle)
    client: HttpClient = await aiohttp_client(app)

    received = await exchange(client, b"GET /last HTTP/1.1\r\nHost: localhost\r\n\r\n" + CLOSING_LIVEZ)

    assert received.count(b"HTTP/1.1 ") == 1
    assert b"\r\nConnection: close\r\n" in received


async def test_a_header_must_not_contain_a_line_break() -> None:
    with pytest.raises(ValueError, match="line break"):
        JsonResponse(b"", headers={"X-Split": "a\r\nX-Smuggled: b"}).to_bytes()
