"""Read the health report of a service, and the schema version that it writes."""

import asyncio
from typing import Any

from redis.asyncio import Redis

from tests.conftest import HttpClient
from tests.test_walkthrough import SESSIONS

WAIT_SECONDS = 30


async def report_of(client: HttpClient) -> dict[str, Any]:
    report: dict[str, Any] = await (await client.get(f"{SESSIONS}/health")).json()
    return report


def codes_in(report: dict[str, Any]) -> list[str]:
    return [reason["code"] for reason in report["reasons"]]


async def wait_for_schema_version(redis: Redis, key: str = "sessions:layout") -> object:
    """Wait until the service has written the schema version, and return it."""
    async with asyncio.timeout(WAIT_SECONDS):
        while (version := await redis.get(key)) is None:
            continue
    return version
