"""Send bytes to a service, and parse what it sends back."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.conftest import HttpClient

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST_LIVEZ = b"GET /livez HTTP/1.0\r\n\r\n"
"""The service closes the connection after its response."""


@asynccontextmanager
async def connection_to(client: HttpClient) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(client.host, client.port)
    yield reader, writer
    writer.close()
    await writer.wait_closed()


async def exchange(client: HttpClient, sent: bytes) -> bytes:
    """Return everything that the service sends until it closes the connection."""
    async with connection_to(client) as (reader, writer):
        writer.write(sent)
        return await reader.read()


async def read_response(reader: asyncio.StreamReader) -> bytes:
    """Return one response with a Content-Length."""
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = re.findall(rb"Content-Length: (\d+)", head)
    return head + await reader.readexactly(int(length))


def first_error(received: bytes) -> tuple[int, str, dict[str, Any]]:
    """Return the status, the code and the details of the first response."""
    head, _, rest = received.partition(b"\r\n\r\n")
    (length,) = re.findall(rb"Content-Length: (\d+)", head)
    error = json.loads(rest[: int(length)])
    assert error["error"]["code"] == error["code"]
    return int(head.split()[1]), error["code"], error["details"]
