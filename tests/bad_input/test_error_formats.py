"""The two formats of an error body: the one of the ElizaOS schema, and the flat one."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp.test_utils import TestClient
from redis.asyncio import Redis

from service.sessions.keys import Keys
from service.settings import Settings
from tests.bad_input.helpers import UNKNOWN_ID
from tests.conftest import HttpClient, ServiceServer
from tests.test_walkthrough import SESSIONS, open_session

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def flat_service(shared_redis: Redis) -> AsyncIterator[HttpClient]:
    async with TestClient(ServiceServer(Settings(session_error_format="flat"), shared_redis)) as client:
        yield client


async def expired_session(client: HttpClient, redis: Redis) -> str:
    """Return the id of a session that expired in 2024."""
    session_id = await open_session(client)
    await redis.hset(Keys("").tombstone(session_id), "expiresAt", 1705314600000)
    await redis.delete(Keys("").session(session_id))
    return session_id


async def test_an_unknown_session_in_the_schema_format(service: HttpClient) -> None:
    response = await service.get(f"{SESSIONS}/abc-123")

    assert response.status == 404
    assert await response.json() == {
        "success": False,
        "error": {
            "code": "SESSION_NOT_FOUND",
            "message": "Session not found",
            "details": "There is no session with the id 'abc-123'.",
        },
        "code": "SESSION_NOT_FOUND",
        "details": {"sessionId": "abc-123"},
    }


async def test_an_expired_session_in_the_schema_format(service: HttpClient, shared_redis: Redis) -> None:
    session_id = await expired_session(service, shared_redis)

    response = await service.get(f"{SESSIONS}/{session_id}")

    assert response.status == 410
    assert await response.json() == {
        "success": False,
        "error": {
            "code": "SESSION_EXPIRED",
            "message": "Session has expired",
            "details": "The session expired at 2024-01-15T10:30:00.000Z because of inactivity.",
        },
        "code": "SESSION_EXPIRED",
        "details": {"sessionId": session_id, "expiresAt": "2024-01-15T10:30:00.000Z", "reason": "inactivity"},
    }


async def test_an_unknown_session_in_the_flat_format(flat_service: HttpClient) -> None:
    response = await flat_service.get(f"{SESSIONS}/abc-123")

    assert response.status == 404
    assert await response.json() == {
        "error": "Session not found",
        "code": "SESSION_NOT_FOUND",
        "details": {"sessionId": "abc-123"},
    }


async def test_an_expired_session_in_the_flat_format(flat_service: HttpClient, shared_redis: Redis) -> None:
    session_id = await expired_session(flat_service, shared_redis)

    response = await flat_service.get(f"{SESSIONS}/{session_id}")

    assert response.status == 410
    assert await response.json() == {
        "error": "Session has expired",
        "code": "SESSION_EXPIRED",
        "details": {"sessionId": session_id, "expiresAt": "2024-01-15T10:30:00.000Z", "reason": "inactivity"},
    }


@pytest.mark.parametrize("path", ["/nowhere", f"{SESSIONS}/{UNKNOWN_ID}/renew"])
async def test_all_other_errors_are_flat_too(flat_service: HttpClient, path: str) -> None:
    response = await flat_service.get(path)

    assert sorted(await response.json()) == ["code", "details", "error"]


async def test_errors_must_not_be_cached(service: HttpClient) -> None:
    response = await service.get(f"{SESSIONS}/{UNKNOWN_ID}")

    assert response.headers["Cache-Control"] == "no-store"
