"""Responses that leave in one write, and those that are left to aiohttp: the same to a client."""

import asyncio
import re

import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpClient

from service.api.server.json_response import JsonResponse
from tests.conftest import HttpClient

REFUSED = b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


async def answers_to(client: HttpClient, sent: bytes) -> bytes:
    """What comes back on one connection until the service closes it."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(sent)
    answers = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answers


async def test_it_says_its_length_type_and_date(client: HttpClient) -> None:
    head, _, rest = (await answers_to(client, REFUSED + LAST)).partition(b"\r\n\r\n")

    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 404 Not Found"
    assert "Content-Type: application/json" in lines
    assert any(re.fullmatch(r"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", line) for line in lines)
    length = int(next(line for line in lines if line.startswith("Content-Length")).split()[1])
    assert rest[length:].startswith(b"HTTP/1.1 200 OK\r\n")


async def test_requests_sent_at_once_are_answered_in_their_order(client: HttpClient) -> None:
    answers = await answers_to(client, REFUSED * 50 + LAST)

    assert answers.count(b"HTTP/1.1 404 Not Found") == 50
    assert answers.endswith(b'{"status":"alive"}')


async def test_a_head_is_told_the_length_and_no_body(client: HttpClient) -> None:
    got = await client.get("/readyz")
    head = await client.head("/readyz")

    assert (head.status, head.headers["Content-Length"]) == (200, got.headers["Content-Length"])
    assert await head.read() == b""


@pytest.mark.parametrize(
    "asked",
    [b"GET /livez HTTP/1.0\r\n\r\n", LAST],
    ids=["HTTP/1.0", "Connection: close"],
)
async def test_a_connection_that_is_to_be_closed_is_closed(client: HttpClient, asked: bytes) -> None:
    answers = await answers_to(client, asked)

    assert answers.count(b"HTTP/1.") == 1
    assert answers.endswith(b'{"status":"alive"}')


async def last_response(_: web.Request) -> JsonResponse:
    response = JsonResponse(b"{}")
    response.force_close()
    return response


async def test_one_that_is_to_be_the_last_says_so_and_is(aiohttp_client: AiohttpClient) -> None:
    app = web.Application()
    app.router.add_get("/last", last_response)
    client: HttpClient = await aiohttp_client(app)

    answers = await answers_to(client, b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n" + LAST)

    assert answers.count(b"HTTP/1.1 ") == 1
    assert b"\r\nConnection: close\r\n" in answers


def test_a_header_that_would_break_the_head_is_refused() -> None:
    with pytest.raises(ValueError, match="line break"):
        JsonResponse(b"", headers={"X-Split": "a\r\nX-Smuggled: b"}).to_bytes()
