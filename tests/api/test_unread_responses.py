"""Clients that do not read their responses occupy a bounded amount of memory."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest
from aiohttp.test_utils import TestServer

from service.api import middleware
from service.api.server.server import Server
from service.settings import Settings
from tests.api.raw_http import connection_to, first_error, read_response
from tests.conftest import AGENT, USER, HttpClient
from tests.test_walkthrough import SESSIONS

PAGE = f"GET {SESSIONS}?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
MANY = 200
"""Their responses do not fit into the buffers of a socket."""


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
async def sessions(client: HttpClient) -> None:
    body = {"agentId": AGENT, "userId": USER, "metadata": {"note": "x" * 10_000}}
    for _ in range(30):
        assert (await client.post(SESSIONS, json=body)).status == 201


@pytest.fixture
async def unread(client: HttpClient) -> AsyncIterator[asyncio.StreamReader]:
    """A connection that has sent many requests for a page and reads no response."""
    async with connection_to(client) as (reader, writer):
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(PAGE * MANY)
        while not unsent_bytes(client):
            await client.get("/livez")
        yield reader


def unsent_bytes(client: HttpClient) -> int:
    """Return the bytes that the service keeps for all connections."""
    runner = cast(TestServer, client.server).runner
    assert runner is not None
    return sum(transport.get_write_buffer_size() for transport in cast(Server, runner.server)._connections.values())


@pytest.mark.usefixtures("sessions", "unread")
async def test_pages_are_rejected_while_clients_have_too_many_unread(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "MAX_UNSENT_BYTES", 1000)

    async with connection_to(client) as (reader, writer):
        writer.write(PAGE)
        response = await read_response(reader)

    assert first_error(response) == (503, "TOO_MANY_UNREAD_PAGES", {})
    assert b"\r\nRetry-After: 1\r\n" in response


@pytest.mark.usefixtures("sessions")
async def test_pages_are_returned_after_clients_have_read_theirs(
    client: HttpClient, unread: asyncio.StreamReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "MAX_UNSENT_BYTES", 1000)
    unread._transport.resume_reading()  # type: ignore[attr-defined]
    for _ in range(MANY):
        await read_response(unread)

    assert (await client.get(SESSIONS)).status == 200
