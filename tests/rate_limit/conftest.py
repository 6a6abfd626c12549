"""Services with limits, and clients of many addresses."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.settings import Settings
from tests.conftest import HttpClient, ServiceServer

Serve = Callable[..., Awaitable[HttpClient]]

UNKNOWN = "4716d2ea-673d-47d0-b1bd-33202db7411b"


def coming_from(address: str) -> dict[str, str]:
    """The headers of what a trusted proxy passes on."""
    return {"X-Forwarded-For": address}


@pytest.fixture
def serve(redis: Redis, aiohttp_client: AiohttpClient) -> Serve:
    """Starts a service with these settings, which believes its peer about addresses."""

    async def start(**settings: Any) -> HttpClient:
        client: HttpClient = await aiohttp_client(
            ServiceServer(Settings(**{"trusted_proxies": "127.0.0.1", **settings}), redis)
        )
        return client

    return start
