"""What a client may send, how slowly, and how many may be connected: bytes on a socket, and what comes back."""

import asyncio
import gc
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp.http_exceptions import HttpProcessingError
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.settings import Settings
from service.settings.http import MAX_FIELD_BYTES, MAX_FIELDS, MAX_HEAD_BYTES, MAX_URL_BYTES
from tests.api.test_json_response import answers_to
from tests.conftest import AGENT, USER, HttpClient, ServiceServer
from tests.test_walkthrough import SESSIONS, open_session

IMPATIENT = {"session_request_timeout_seconds": 0.2}
ALIVE = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST = b"GET /livez HTTP/1.0\r\n\r\n"
MANY = ALIVE.replace(b"/livez", b"/openapi.json") * 500
"""More is answered to them than a socket's buffers hold."""
OPENING = f"POST {SESSIONS} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n".encode()


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
async def client(settings: Settings, fake_redis: Redis, aiohttp_client: AiohttpClient) -> HttpClient:
    return await aiohttp_client(ServiceServer(settings, fake_redis))


def with_settings(**changed: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("settings", [Settings(**changed)], ids=["set"])


@asynccontextmanager
async def connected(client: HttpClient) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(client.host, client.port)
    yield reader, writer
    writer.close()
    await writer.wait_closed()


async def answer_on(reader: asyncio.StreamReader) -> bytes:
    """One answer, whole."""
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = re.findall(rb"Content-Length: (\d+)", head)
    return head + await reader.readexactly(int(length))


def refusal_in(answers: bytes) -> tuple[int, str, dict[str, Any]]:
    """The status, the code and the details of the first answer."""
    head, _, rest = answers.partition(b"\r\n\r\n")
    (length,) = re.findall(rb"Content-Length: (\d+)", head)
    refusal = json.loads(rest[: int(length)])
    assert refusal["error"]["code"] == refusal["code"]
    return int(head.split()[1]), refusal["code"], refusal["details"]


# Sizes


async def test_a_url_that_is_too_long_is_refused_with_the_bound(client: HttpClient) -> None:
    path = b"/" + b"a" * MAX_URL_BYTES

    answers = await answers_to(client, b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path)

    assert refusal_in(answers) == (414, "URI_TOO_LONG", {"maxBytes": MAX_URL_BYTES})


async def test_a_url_as_long_as_may_be_is_read(client: HttpClient) -> None:
    path = b"/" + b"a" * (MAX_URL_BYTES - 1)

    answers = await answers_to(client, b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path + LAST)

    assert refusal_in(answers)[:2] == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    "headers",
    [
        b"X-Long: " + b"a" * (MAX_FIELD_BYTES + 1) + b"\r\n",
        b"a" * (MAX_FIELD_BYTES + 1) + b": b\r\n",
        b"X-Many: a\r\n" * (MAX_FIELDS + 1),
    ],
    ids=["a long value", "a long name", "many"],
)
async def test_headers_that_are_too_large_are_refused_with_the_bounds(client: HttpClient, headers: bytes) -> None:
    answers = await answers_to(client, b"GET /livez HTTP/1.1\r\nHost: a\r\n%b\r\n" % headers)

    bounds = {"maxFields": MAX_FIELDS, "maxFieldBytes": MAX_FIELD_BYTES, "maxBytes": MAX_HEAD_BYTES}
    assert refusal_in(answers) == (431, "REQUEST_HEADER_FIELDS_TOO_LARGE", bounds)


async def test_headers_as_large_as_may_be_are_read(client: HttpClient) -> None:
    large = b"X-Long: " + b"a" * (MAX_FIELD_BYTES - len(b"X-Long")) + b"\r\n"

    answers = await answers_to(client, b"GET /livez HTTP/1.0\r\n%b%b\r\n" % (large, b"X-Many: a\r\n" * 99))

    assert answers.startswith(b"HTTP/1.0 200 ")


async def test_no_more_of_a_head_is_waited_for_than_may_be(client: HttpClient) -> None:
    field = b"X-Long: " + b"a" * 8000 + b"\r\n"
    async with connected(client) as (reader, writer):
        writer.write(b"GET /livez HTTP/1.1\r\n" + field * 9)
        answers = await reader.read()

    assert refusal_in(answers)[:2] == (431, "REQUEST_HEADER_FIELDS_TOO_LARGE")


@with_settings(session_error_format="flat")
async def test_these_refusals_are_of_the_shape_that_is_set(client: HttpClient) -> None:
    answers = await answers_to(client, b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * MAX_URL_BYTES))

    refusal = json.loads(answers.partition(b"\r\n\r\n")[2])
    assert (refusal["error"], refusal["code"]) == ("URL is too long", "URI_TOO_LONG")


# Slow clients


@with_settings(**IMPATIENT)
@pytest.mark.parametrize("begun", [b"G", b"GET /livez HTTP/1.1\r\n", ALIVE[:-2]], ids=["a letter", "a line", "but one"])
async def test_a_head_that_is_not_whole_in_time_is_refused(client: HttpClient, begun: bytes) -> None:
    answers = await answers_to(client, begun)

    assert refusal_in(answers) == (408, "REQUEST_TIMEOUT", {})
    assert b"\r\nConnection: close\r\n" in answers


@with_settings(**IMPATIENT)
async def test_so_is_one_behind_other_requests(client: HttpClient) -> None:
    async with connected(client) as (reader, writer):
        writer.write(ALIVE)
        alive = await answer_on(reader)
        writer.write(ALIVE[:-2])
        answers = await reader.read()

    assert alive.startswith(b"HTTP/1.1 200 ")
    assert refusal_in(answers)[:2] == (408, "REQUEST_TIMEOUT")


@with_settings(**IMPATIENT)
async def test_so_is_one_that_comes_letter_by_letter(client: HttpClient) -> None:
    async with connected(client) as (reader, writer):
        dripping = asyncio.create_task(drip(writer))
        answers = await reader.read()
        dripping.cancel()

    assert refusal_in(answers)[:2] == (408, "REQUEST_TIMEOUT")


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /livez HTTP/1.1\r\nX-Long: ")
    while True:
        writer.write(b"a")
        await asyncio.sleep(0.01)


@with_settings(**IMPATIENT)
@pytest.mark.parametrize(
    "framing", [b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{"], ids=["length", "chunks"]
)
async def test_a_body_that_is_not_whole_in_time_is_refused(client: HttpClient, framing: bytes) -> None:
    answers = await answers_to(client, OPENING + framing)

    assert refusal_in(answers) == (408, "REQUEST_TIMEOUT", {})
    assert b"\r\nConnection: close\r\n" in answers


@with_settings(**IMPATIENT)
async def test_where_nobody_reads_the_body_the_answer_comes_and_the_connection_goes(client: HttpClient) -> None:
    session_id = await open_session(client)

    answers = await answers_to(
        client, f"POST {SESSIONS}/{session_id}/heartbeat HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{{".encode()
    )

    assert answers.startswith(b"HTTP/1.1 200 ")
    assert answers.count(b"HTTP/1.1") == 1


async def test_a_chunk_that_is_none_is_refused_at_once(client: HttpClient) -> None:
    async with connected(client) as (reader, writer):
        writer.write(OPENING + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
        await reader.readuntil(GO_ON)
        writer.write(b"zz\r\n{}\r\n0\r\n\r\n")
        answers = await reader.read()

    assert refusal_in(answers)[:2] == (400, "BAD_REQUEST")
    assert answers.count(b"HTTP/1.1") == 1


@with_settings(**IMPATIENT)
async def test_a_new_connection_that_says_nothing_is_closed(client: HttpClient) -> None:
    assert await answers_to(client, b"") == b""


@with_settings(**IMPATIENT)
async def test_blank_lines_are_no_head(client: HttpClient) -> None:
    assert await answers_to(client, b"\r\n") == b""


@with_settings(session_request_timeout_seconds=0.1, session_keep_alive_seconds=0.5)
async def test_a_connection_is_kept_open_between_requests_for_longer_than_a_request_may_take(
    client: HttpClient,
) -> None:
    began = asyncio.get_running_loop().time()

    answers = await answers_to(client, ALIVE)

    assert answers.count(b"HTTP/1.1") == 1
    assert asyncio.get_running_loop().time() - began >= 0.5


def test_it_is_kept_for_longer_than_the_balancer_keeps_its_own(settings: Settings) -> None:
    assert settings.session_keep_alive_seconds > 60


@with_settings(**IMPATIENT)
async def test_a_client_that_does_not_take_its_answers_is_dropped(client: HttpClient) -> None:
    async with connected(client) as (reader, writer):
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(MANY)
        await until_connected(client, 0)


@with_settings(**IMPATIENT)
async def test_also_where_its_connection_was_about_to_be_closed(client: HttpClient) -> None:
    async with connected(client) as (reader, writer):
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(MANY + b"nonsense\r\n\r\n")
        await until_connected(client, 0)


# Connections


async def until_connected(client: HttpClient, number: int) -> None:
    """Wait for so many clients to be connected, beside the one that asks."""
    while await connected_to(client) - 1 != number:
        continue


async def connected_to(client: HttpClient) -> int:
    metrics = await (await client.get("/metrics")).text()
    (number,) = re.findall(r"^sessions_http_connections (\d+)\.0$", metrics, re.MULTILINE)
    return int(number)


async def test_connections_are_counted(client: HttpClient) -> None:
    async with connected(client), connected(client):
        await until_connected(client, 2)
    await until_connected(client, 0)


@with_settings(session_max_connections=2)
async def test_beyond_as_many_as_may_be_one_is_told_so_and_closed(client: HttpClient) -> None:
    async with connected(client), connected(client):
        answers = await answers_to(client, b"")

    assert refusal_in(answers) == (503, "TOO_MANY_CONNECTIONS", {})
    assert b"\r\nRetry-After: 1\r\n" in answers
    assert b"\r\nConnection: close\r\n" in answers


@with_settings(session_max_connections=2)
async def test_those_that_were_there_are_served_on(client: HttpClient) -> None:
    async with connected(client) as (reader, writer), connected(client):
        await answers_to(client, ALIVE)
        writer.write(LAST)
        answers = await reader.read()

    assert answers.startswith(b"HTTP/1.0 200 ")


@with_settings(session_max_connections=1)
async def test_when_one_has_gone_another_is_served(client: HttpClient) -> None:
    async with connected(client):
        await answers_to(client, b"")

    assert (await client.get("/livez")).status == 200


@with_settings(session_max_connections=2, **IMPATIENT)
async def test_an_episode_is_told_once(client: HttpClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="service.api.server.server")
    async with connected(client), connected(client):
        await answers_to(client, b"")
        await answers_to(client, b"")
    while "accepting connections again" not in caplog.messages:
        await client.get("/livez")

    assert caplog.messages.count("rejecting connections: SESSION_MAX_CONNECTIONS is reached (2)") == 1
    assert caplog.messages.count("accepting connections again") == 1


@with_settings(session_max_connections=1)
async def test_refused_connections_are_counted(client: HttpClient) -> None:
    async with connected(client):
        await answers_to(client, b"")

    metrics = await (await client.get("/metrics")).text()
    assert "\nsessions_http_connections_refused_total 1.0\n" in metrics


async def test_a_request_that_is_in_time_is_served_to_the_end(client: HttpClient) -> None:
    body = f'{{"agentId":"{AGENT}","userId":"{USER}"}}'.encode()
    async with connected(client) as (reader, writer):
        writer.write(OPENING + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:5])
        await reader.readuntil(GO_ON)
        writer.write(body[5:])
        answer = await answer_on(reader)

    assert answer.startswith(b"HTTP/1.1 201 ")


# What is no request


@pytest.fixture
def no_search_for_garbage() -> Iterator[None]:
    """What is in cycles stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def test_much_that_is_no_request_is_refused_and_nothing_of_it_is_kept(
    client: HttpClient, no_search_for_garbage: None
) -> None:
    async with connected(client) as (reader, writer):
        writer.write(b"x" * 1_000_000)
        answer = await answer_on(reader)

    assert refusal_in(answer)[:2] == (400, "BAD_REQUEST")
    assert [kept for kept in gc.get_objects() if isinstance(kept, HttpProcessingError)] == []
