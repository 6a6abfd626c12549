"""Requests that offer an upgrade to another protocol. The service stays with HTTP/1.1."""

from contextlib import suppress

import pytest

from tests.api.raw_http import LAST_LIVEZ, LIVEZ, connection_to, exchange, read_response
from tests.conftest import HttpClient
from tests.test_walkthrough import SESSIONS, open_session

pytestmark = pytest.mark.asyncio(loop_scope="package")

PROTOCOLS = [b"h2c", b"TLS/1.0", b"websocket, h2c", b"webso\xe2\x84\xaaet", b"websocket"]
BODY_LIKE_A_REQUEST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: inner\r\n\r\n"
POST_HEAD = (
    f"POST {SESSIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BODY_LIKE_A_REQUEST)}\r\n\r\n".encode()
)


def upgrade_to(protocol: bytes, request: bytes = LIVEZ) -> bytes:
    return request.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n" % protocol, 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_body_of_a_request_behind_an_upgrade_is_not_executed(service: HttpClient, protocol: bytes) -> None:
    async with connection_to(service) as (reader, writer):
        writer.write(upgrade_to(protocol) + POST_HEAD)
        received = await read_response(reader)
        writer.write(BODY_LIKE_A_REQUEST + LAST_LIVEZ)
        with suppress(ConnectionResetError):  # the service has closed the connection
            received += await reader.read()

    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"inner" not in received


@pytest.mark.parametrize("protocol", PROTOCOLS[:-1])
async def test_the_connection_closes_if_a_request_follows_an_upgrade_at_once(
    service: HttpClient, protocol: bytes
) -> None:
    received = await exchange(service, upgrade_to(protocol) + LIVEZ)

    assert received.count(b"HTTP/1.1 200 ") == 1
    assert b"\r\nConnection: close\r\n" in received


async def test_the_connection_closes_after_two_upgrades(service: HttpClient) -> None:
    received = await exchange(service, upgrade_to(b"websocket") + upgrade_to(b"h2c") + POST_HEAD)

    assert received.count(b"HTTP/1.1 200 ") == 2
    assert b"\r\nConnection: close\r\n" in received


async def test_the_connection_closes_after_an_upgrade_if_its_body_arrives_later(service: HttpClient) -> None:
    async with connection_to(service) as (reader, writer):
        writer.write(upgrade_to(b"h2c", POST_HEAD))
        writer.write(BODY_LIKE_A_REQUEST + POST_HEAD)
        received = await reader.read()

    assert received.startswith(b"HTTP/1.1 415 ")
    assert received.count(b"HTTP/1.1") == 1


async def test_the_connection_stays_open_after_an_upgrade_that_comes_alone(service: HttpClient) -> None:
    session_id = await open_session(service)
    heartbeat = (
        f"POST {SESSIONS}/{session_id}/heartbeat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n".encode()
    )
    async with connection_to(service) as (reader, writer):
        writer.write(upgrade_to(b"h2c"))
        first = await read_response(reader)
        writer.write(upgrade_to(b"h2c", heartbeat) + b"{}")
        second = await read_response(reader)
        writer.write(LIVEZ)
        third = await read_response(reader)

    assert [response[:13] for response in (first, second, third)] == [b"HTTP/1.1 200 "] * 3
