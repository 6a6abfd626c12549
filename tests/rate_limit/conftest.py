"""Services with rate limits, and requests from any address."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.settings import Settings
from tests.auth.conftest import AUDIENCE, ENTRIES, ISSUER, SECRET
from tests.conftest import HttpClient, ServiceServer
from tests.test_walkthrough import SESSIONS

StartService = Callable[..., Awaitable[HttpClient]]

ADDRESS, OTHER_ADDRESS = "203.0.113.7", "203.0.113.8"
UNKNOWN_ID = "4716d2ea-673d-47d0-b1bd-33202db7411b"
UNKNOWN_SESSION = f"{SESSIONS}/{UNKNOWN_ID}"
AUTHENTICATION = {
    "session_api_keys": ENTRIES,
    "session_jwt_issuer": ISSUER,
    "session_jwt_audience": AUDIENCE,
    "session_jwt_secret": SECRET,
}


def from_address(address: str) -> dict[str, str]:
    """Return the headers of a request that a trusted proxy forwards."""
    return {"X-Forwarded-For": address}


async def statuses_of(
    client: HttpClient, number: int, headers: dict[str, str], path: str = SESSIONS, method: str = "GET"
) -> list[int]:
    """Return the statuses of this number of requests, one after the other."""
    return [(await client.request(method, path, headers=headers)).status for _ in range(number)]


@pytest.fixture
def start_service(redis: Redis, aiohttp_client: AiohttpClient) -> StartService:
    """Starts services with these settings, which trust the address that the test sends."""

    async def start(**settings: Any) -> HttpClient:
        values = {"trusted_proxies": "127.0.0.1", **settings}
        client: HttpClient = await aiohttp_client(ServiceServer(Settings(**values), redis))
        return client

    return start
