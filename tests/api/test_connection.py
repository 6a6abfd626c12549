"""Limits on the size and the duration of requests, and on the number of connections."""

import asyncio
import gc
import json
import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from aiohttp.http_exceptions import HttpProcessingError

from service.api.server.connection import ClientConnection
from service.settings import Settings
from service.settings.http import MAX_FIELD_BYTES, MAX_FIELDS, MAX_HEAD_BYTES, MAX_URL_BYTES
from tests.api.raw_http import LAST_LIVEZ, LIVEZ, connection_to, exchange, first_error, read_response
from tests.conftest import AGENT, USER, HttpClient
from tests.secrets_in_logs import secrets_in
from tests.test_walkthrough import SESSIONS, open_session

SHORT_TIMEOUT = {"session_request_timeout_seconds": 0.2}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
MANY_REQUESTS = LIVEZ.replace(b"/livez", b"/openapi.json") * 500
"""Their responses do not fit into the buffers of a socket."""
CREATE_HEAD = f"POST {SESSIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()


@pytest.fixture
def settings() -> Settings:
    return Settings()


def with_settings(**values: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("settings", [Settings(**values)], ids=["custom"])


@pytest.mark.parametrize(
    "malformed",
    [
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-API-KEY: ssk_a-key-in-a-malformed-header\x01\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-API-KEY ssk_a-key-in-a-malformed-header\r\n\r\n",
        b"GET /livez?ssk_a-key-in-a-malformed-target\x01 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"ssk_a-key-in-a-malformed-method\x01 /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /livez HTTP/ssk_a-key-in-a-malformed-version\r\nHost: localhost\r\n\r\n",
        CREATE_HEAD + b"Transfer-Encoding: chunked\r\n\r\nssk_a-key-in-a-malformed-chunk\r\n\r\n",
    ],
    ids=["header", "header without a colon", "target", "method", "version", "chunk"],
)
async def test_the_log_does_not_contain_the_bytes_of_a_malformed_request(
    client: HttpClient, caplog: pytest.LogCaptureFixture, malformed: bytes
) -> None:
    caplog.set_level("DEBUG")

    received = await exchange(client, malformed)

    assert first_error(received)[0] == 400
    assert secrets_in(caplog.text) == set()


# Sizes


async def test_a_url_that_is_too_long_is_rejected_with_the_limit(client: HttpClient) -> None:
    path = b"/" + b"a" * MAX_URL_BYTES

    received = await exchange(client, b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)

    assert first_error(received) == (414, "URI_TOO_LONG", {"maxBytes": MAX_URL_BYTES})


async def test_a_url_of_the_maximum_length_is_accepted(client: HttpClient) -> None:
    path = b"/" + b"a" * (MAX_URL_BYTES - 1)

    received = await exchange(client, b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path + LAST_LIVEZ)

    assert first_error(received)[:2] == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    "headers",
    [
        b"X-Long: " + b"a" * (MAX_FIELD_BYTES + 1) + b"\r\n",
        b"a" * (MAX_FIELD_BYTES + 1) + b": b\r\n",
        b"X-Many: a\r\n" * (MAX_FIELDS + 1),
    ],
    ids=["long value", "long name", "many headers"],
)
async def test_headers_that_are_too_large_are_rejected_with_the_limits(client: HttpClient, headers: bytes) -> None:
    received = await exchange(client, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % headers)

    limits = {"maxFields": MAX_FIELDS, "maxFieldBytes": MAX_FIELD_BYTES, "maxBytes": MAX_HEAD_BYTES}
    assert first_error(received) == (431, "REQUEST_HEADER_FIELDS_TOO_LARGE", limits)


async def test_headers_of_the_maximum_size_are_accepted(client: HttpClient) -> None:
    large = b"X-Long: " + b"a" * (MAX_FIELD_BYTES - len(b"X-Long")) + b"\r\n"

    received = await exchange(client, b"GET /livez HTTP/1.0\r\n%b%b\r\n" % (large, b"X-Many: a\r\n" * 99))

    assert received.startswith(b"HTTP/1.0 200 ")


async def test_an_incomplete_head_beyond_the_limit_is_rejected(client: HttpClient) -> None:
    header = b"X-Long: " + b"a" * 8000 + b"\r\n"
    async with connection_to(client) as (reader, writer):
        writer.write(b"GET /livez HTTP/1.1\r\n" + header * 9)
        received = await reader.read()

    assert first_error(received)[:2] == (431, "REQUEST_HEADER_FIELDS_TOO_LARGE")


@with_settings(session_error_format="flat")
async def test_errors_of_unreadable_requests_follow_the_error_format(client: HttpClient) -> None:
    received = await exchange(client, b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"a" * MAX_URL_BYTES))

    error = json.loads(received.partition(b"\r\n\r\n")[2])
    assert (error["error"], error["code"]) == ("URL is too long", "URI_TOO_LONG")


# Slow clients


@with_settings(**SHORT_TIMEOUT)
@pytest.mark.parametrize("start", [b"G", b"GET /livez HTTP/1.1\r\n", LIVEZ[:-2]], ids=["letter", "line", "almost all"])
async def test_an_incomplete_head_is_rejected_after_the_timeout(client: HttpClient, start: bytes) -> None:
    received = await exchange(client, start)

    assert first_error(received) == (408, "REQUEST_TIMEOUT", {})
    assert b"\r\nConnection: close\r\n" in received


@with_settings(**SHORT_TIMEOUT)
async def test_an_incomplete_head_after_other_requests_is_rejected_too(client: HttpClient) -> None:
    async with connection_to(client) as (reader, writer):
        writer.write(LIVEZ)
        first = await read_response(reader)
        writer.write(LIVEZ[:-2])
        second = await reader.read()

    assert first.startswith(b"HTTP/1.1 200 ")
    assert first_error(second)[:2] == (408, "REQUEST_TIMEOUT")


@with_settings(**SHORT_TIMEOUT)
async def test_sending_single_letters_does_not_extend_the_timeout(client: HttpClient) -> None:
    async with connection_to(client) as (reader, writer):
        sender = asyncio.create_task(_send_letters(writer))
        received = await read_response(reader)
        sender.cancel()

    assert first_error(received)[:2] == (408, "REQUEST_TIMEOUT")


async def _send_letters(writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /livez HTTP/1.1\r\nX-Long: ")
    with suppress(ConnectionError):
        while True:
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.01)


@with_settings(**SHORT_TIMEOUT)
@pytest.mark.parametrize(
    "framing", [b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{"], ids=["length", "chunks"]
)
async def test_an_incomplete_body_is_rejected_after_the_timeout(client: HttpClient, framing: bytes) -> None:
    received = await exchange(client, CREATE_HEAD + framing)

    assert first_error(received) == (408, "REQUEST_TIMEOUT", {})
    assert b"\r\nConnection: close\r\n" in received


@with_settings(**SHORT_TIMEOUT)
async def test_after_an_incomplete_body_that_is_not_needed_the_connection_is_closed(client: HttpClient) -> None:
    session_id = await open_session(client)
    head = f"POST {SESSIONS}/{session_id}/heartbeat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"

    received = await exchange(client, head.encode() + b"{")

    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.count(b"HTTP/1.1") == 1


async def test_an_invalid_chunk_is_rejected_immediately(client: HttpClient) -> None:
    async with connection_to(client) as (reader, writer):
        writer.write(CREATE_HEAD + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
        await reader.readuntil(CONTINUE)
        writer.write(b"zz\r\n{}\r\n0\r\n\r\n")
        received = await reader.read()

    assert first_error(received)[:2] == (400, "BAD_REQUEST")
    assert received.count(b"HTTP/1.1") == 1


@with_settings(**SHORT_TIMEOUT)
@pytest.mark.parametrize("sent", [b"", b"\r\n"], ids=["nothing", "a blank line"])
async def test_a_connection_without_a_request_is_closed_without_a_response(client: HttpClient, sent: bytes) -> None:
    assert await exchange(client, sent) == b""


@with_settings(session_request_timeout_seconds=0.1, session_keep_alive_seconds=0.5)
async def test_a_connection_stays_open_between_requests_for_the_keep_alive_time(client: HttpClient) -> None:
    started_at = asyncio.get_running_loop().time()

    received = await exchange(client, LIVEZ)

    assert received.count(b"HTTP/1.1") == 1
    assert asyncio.get_running_loop().time() - started_at >= 0.5


def test_the_keep_alive_time_is_longer_than_that_of_the_balancer(settings: Settings) -> None:
    assert settings.session_keep_alive_seconds > 60


@with_settings(**SHORT_TIMEOUT)
@pytest.mark.parametrize("last", [b"", b"nonsense\r\n\r\n"], ids=["open", "about to be closed"])
async def test_a_client_that_does_not_read_responses_is_disconnected(client: HttpClient, last: bytes) -> None:
    async with connection_to(client) as (reader, writer):
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(MANY_REQUESTS + last)
        await _wait_for_connections(client, 0)


async def test_a_request_within_the_timeout_is_served(client: HttpClient) -> None:
    body = f'{{"agentId":"{AGENT}","userId":"{USER}"}}'.encode()
    async with connection_to(client) as (reader, writer):
        writer.write(CREATE_HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:5])
        await reader.readuntil(CONTINUE)
        writer.write(body[5:])
        response = await read_response(reader)

    assert response.startswith(b"HTTP/1.1 201 ")


# Number of connections


async def _wait_for_connections(client: HttpClient, number: int) -> None:
    """Wait for this number of connections beside that of `client`."""
    while await _metric(client, "sessions_http_connections") - 1 != number:
        continue


async def _metric(client: HttpClient, name: str) -> float:
    metrics = await (await client.get("/metrics")).text()
    (value,) = re.findall(rf"^{name} (\S+)$", metrics, re.MULTILINE)
    return float(value)


async def test_connections_are_counted(client: HttpClient) -> None:
    async with connection_to(client), connection_to(client):
        await _wait_for_connections(client, 2)
    await _wait_for_connections(client, 0)


@with_settings(session_max_connections=2)
async def test_a_connection_beyond_the_maximum_receives_an_error_and_is_closed(client: HttpClient) -> None:
    async with connection_to(client), connection_to(client):
        received = await exchange(client, b"")

    assert first_error(received) == (503, "TOO_MANY_CONNECTIONS", {})
    assert b"\r\nRetry-After: 1\r\n" in received
    assert b"\r\nConnection: close\r\n" in received


@with_settings(session_max_connections=2)
async def test_existing_connections_are_still_served_at_the_maximum(client: HttpClient) -> None:
    async with connection_to(client) as (reader, writer), connection_to(client):
        await exchange(client, LIVEZ)
        writer.write(LAST_LIVEZ)
        received = await reader.read()

    assert received.startswith(b"HTTP/1.0 200 ")


@with_settings(session_max_connections=1)
async def test_after_a_connection_is_closed_another_is_accepted(client: HttpClient) -> None:
    async with connection_to(client):
        await exchange(client, b"")

    assert (await client.get("/livez")).status == 200


@with_settings(session_max_connections=2, **SHORT_TIMEOUT)
async def test_reaching_and_leaving_the_maximum_is_logged_once(
    client: HttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="service.api.server.server")
    async with connection_to(client), connection_to(client):
        await exchange(client, b"")
        await exchange(client, b"")
    while "accepting connections again" not in caplog.messages:
        await client.get("/livez")

    assert caplog.messages.count("rejecting connections: SESSION_MAX_CONNECTIONS is reached (2)") == 1
    assert caplog.messages.count("accepting connections again") == 1


@with_settings(session_max_connections=1)
async def test_rejected_connections_are_counted(client: HttpClient) -> None:
    async with connection_to(client):
        await exchange(client, b"")

    assert await _metric(client, "sessions_http_connections_refused_total") == 1


# Memory


@pytest.fixture
def no_garbage_collection() -> Iterator[None]:
    """Objects in reference cycles stay in memory."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_garbage_collection")
async def test_a_large_unreadable_request_leaves_no_errors_in_memory(client: HttpClient) -> None:
    async with connection_to(client) as (reader, writer):
        writer.write(b"x" * 1_000_000)
        response = await read_response(reader)

    assert first_error(response)[:2] == (400, "BAD_REQUEST")
    assert [kept for kept in gc.get_objects() if isinstance(kept, HttpProcessingError)] == []


# Faults


@with_settings(**SHORT_TIMEOUT)
async def test_timeouts_are_enforced_after_an_error_in_a_check(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    check_timeouts = ClientConnection.check_timeouts

    def fail_once(*_: object) -> None:
        monkeypatch.setattr(ClientConnection, "check_timeouts", check_timeouts)
        raise TypeError("an unexpected state")

    async with connection_to(client) as (reader, _):
        monkeypatch.setattr(ClientConnection, "check_timeouts", fail_once)
        closed = await reader.read()
    received = await exchange(client, b"GET /livez")

    assert closed == b""
    assert first_error(received)[:2] == (408, "REQUEST_TIMEOUT")
    assert "a connection is closed, because its timeouts cannot be checked" in caplog.messages
