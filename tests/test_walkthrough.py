"""The life of a session over HTTP. Start here."""

from typing import Any

import pytest
from redis.asyncio import Redis

from tests.aging import age
from tests.conftest import AGENT, USER, HttpClient

SESSIONS = "/api/messaging/sessions"
MINUTE_MS = 60_000


@pytest.fixture
def redis(fake_redis: Redis) -> Redis:
    return fake_redis


async def open_session(client: HttpClient, **members: object) -> str:
    """Create a session and return its id. `members` are added to the request body."""
    response = await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER, **members})
    assert response.status == 201
    session_id: str = (await response.json())["sessionId"]
    return session_id


async def get_session(client: HttpClient, session_id: str) -> dict[str, Any]:
    response = await client.get(f"{SESSIONS}/{session_id}")
    assert response.status == 200
    session: dict[str, Any] = await response.json()
    return session


async def test_a_session_connects_a_user_with_an_agent(client: HttpClient) -> None:
    response = await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER, "metadata": {"channel": "web"}})

    session = await response.json()
    assert response.status == 201
    assert response.headers["Location"] == f"{SESSIONS}/{session['sessionId']}"
    assert (session["agentId"], session["userId"]) == (AGENT, USER)
    assert session["metadata"] == {"channel": "web"}
    assert session["timeoutConfig"] == {
        "timeoutMinutes": 30,
        "autoRenew": True,
        "maxDurationMinutes": 720,
        "warningThresholdMinutes": 5,
    }


async def test_reading_a_session_does_not_extend_it(client: HttpClient, redis: Redis) -> None:
    session_id = await open_session(client)
    await age(redis, session_id, 10 * MINUTE_MS)

    first = await get_session(client, session_id)
    second = await get_session(client, session_id)

    assert 19 * MINUTE_MS < first["timeRemaining"] <= 20 * MINUTE_MS
    assert second["expiresAt"] == first["expiresAt"]
    assert second["lastActivity"] == first["lastActivity"]
    assert second["renewalCount"] == 0


async def test_a_heartbeat_extends_a_session_by_its_timeout(client: HttpClient, redis: Redis) -> None:
    session_id = await open_session(client)
    await age(redis, session_id, 29 * MINUTE_MS)

    session = await (await client.post(f"{SESSIONS}/{session_id}/heartbeat")).json()

    assert session["timeRemaining"] == 30 * MINUTE_MS
    assert session["renewalCount"] == 1


async def test_a_heartbeat_does_not_extend_a_session_without_auto_renew(client: HttpClient, redis: Redis) -> None:
    session_id = await open_session(client, timeoutConfig={"autoRenew": False})
    await age(redis, session_id, 29 * MINUTE_MS)

    session = await (await client.post(f"{SESSIONS}/{session_id}/heartbeat")).json()

    assert session["timeRemaining"] <= 1 * MINUTE_MS
    assert session["renewalCount"] == 0
    assert session["isNearExpiration"] is True


async def test_renew_extends_also_a_session_without_auto_renew(client: HttpClient, redis: Redis) -> None:
    session_id = await open_session(client, timeoutConfig={"autoRenew": False})
    await age(redis, session_id, 29 * MINUTE_MS)

    session = await (await client.post(f"{SESSIONS}/{session_id}/renew")).json()

    assert session["timeRemaining"] == 30 * MINUTE_MS
    assert session["renewalCount"] == 1


async def test_no_session_is_extended_beyond_its_maximum_duration(client: HttpClient) -> None:
    session_id = await open_session(client, timeoutConfig={"timeoutMinutes": 60, "maxDurationMinutes": 60})

    response = await client.post(f"{SESSIONS}/{session_id}/renew")

    error = await response.json()
    assert response.status == 422
    assert error["code"] == "SESSION_RENEWAL_FAILED"
    assert error["details"]["maxDurationMinutes"] == 60


async def test_a_new_timeout_changes_when_a_session_expires(client: HttpClient) -> None:
    session_id = await open_session(client)

    response = await client.patch(f"{SESSIONS}/{session_id}/timeout", json={"timeoutMinutes": 60})

    session = await response.json()
    assert 59 * MINUTE_MS < session["timeRemaining"] <= 60 * MINUTE_MS
    assert session["timeoutConfig"]["timeoutMinutes"] == 60
    assert session["timeoutConfig"]["maxDurationMinutes"] == 720


async def test_a_metadata_patch_sets_and_removes_single_members(client: HttpClient) -> None:
    session_id = await open_session(client, metadata={"channel": "web", "draft": "Hel"})

    response = await client.patch(f"{SESSIONS}/{session_id}/metadata", json={"draft": None, "topic": "weather"})

    session = await response.json()
    assert session["metadata"] == {"channel": "web", "topic": "weather"}


async def test_an_idle_session_expires(client: HttpClient, redis: Redis) -> None:
    session_id = await open_session(client)
    await age(redis, session_id, 30 * MINUTE_MS)

    read = await client.get(f"{SESSIONS}/{session_id}")
    heartbeat = await client.post(f"{SESSIONS}/{session_id}/heartbeat")

    error = await read.json()
    assert (read.status, heartbeat.status) == (410, 410)
    assert error["code"] == "SESSION_EXPIRED"
    assert error["details"]["sessionId"] == session_id
    assert error["details"]["reason"] == "inactivity"
    assert error["details"]["expiresAt"].endswith("Z")


async def test_an_expired_session_is_unknown_after_a_day(client: HttpClient, redis: Redis) -> None:
    session_id = await open_session(client)
    await age(redis, session_id, (30 + 24 * 60) * MINUTE_MS)

    response = await client.get(f"{SESSIONS}/{session_id}")

    assert response.status == 404


async def test_a_deleted_session_is_unknown_at_once(client: HttpClient) -> None:
    session_id = await open_session(client)

    deleted = await client.delete(f"{SESSIONS}/{session_id}")
    read = await client.get(f"{SESSIONS}/{session_id}")

    assert deleted.status == 200
    assert (await deleted.json())["success"] is True
    assert read.status == 404
    assert (await read.json())["code"] == "SESSION_NOT_FOUND"
