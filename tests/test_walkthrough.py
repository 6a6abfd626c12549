"""A session's life, told over HTTP. Read this first."""

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
    response = await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER, **members})
    assert response.status == 201
    session_id: str = (await response.json())["sessionId"]
    return session_id


async def test_a_session_is_opened_between_a_user_and_an_agent(client: HttpClient) -> None:
    response = await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER, "metadata": {"channel": "web"}})

    session = await response.json()
    assert response.status == 201
    assert response.headers["Location"] == f"{SESSIONS}/{session['sessionId']}"
    assert session["agentId"] == AGENT
    assert session["userId"] == USER
    assert session["metadata"] == {"channel": "web"}
    assert session["timeoutConfig"] == {
        "timeoutMinutes": 30,
        "autoRenew": True,
        "maxDurationMinutes": 720,
        "warningThresholdMinutes": 5,
    }


async def test_it_can_be_read_and_reading_moves_nothing(client: HttpClient, redis: Redis) -> None:
    session_id = await open_session(client)
    await age(redis, session_id, 10 * MINUTE_MS)

    first = await (await client.get(f"{SESSIONS}/{session_id}")).json()
    second = await (await client.get(f"{SESSIONS}/{session_id}")).json()

    assert 19 * MINUTE_MS < first["timeRemaining"] <= 20 * MINUTE_MS
    assert second["expiresAt"] == first["expiresAt"]
    assert second["lastActivity"] == first["lastActivity"]
    assert second["renewalCount"] == 0


async def test_a_heartbeat_keeps_it_alive(client: HttpClient, redis: Redis) -> None:
    session_id = await open_session(client)
    await age(redis, session_id, 29 * MINUTE_MS)

    session = await (await client.post(f"{SESSIONS}/{session_id}/heartbeat")).json()

    assert session["timeRemaining"] == 30 * MINUTE_MS
    assert session["renewalCount"] == 1


async def test_a_heartbeat_does_not_extend_one_that_does_not_renew_itself(client: HttpClient, redis: Redis) -> None:
    session_id = await open_session(client, timeoutConfig={"autoRenew": False})
    await age(redis, session_id, 29 * MINUTE_MS)

    session = await (await client.post(f"{SESSIONS}/{session_id}/heartbeat")).json()

    assert session["timeRemaining"] <= 1 * MINUTE_MS
    assert session["renewalCount"] == 0
    assert session["isNearExpiration"] is True


async def test_it_can_be_renewed_by_hand(client: HttpClient, redis: Redis) -> None:
    session_id = await open_session(client, timeoutConfig={"autoRenew": False})
    await age(redis, session_id, 29 * MINUTE_MS)

    session = await (await client.post(f"{SESSIONS}/{session_id}/renew")).json()

    assert session["timeRemaining"] == 30 * MINUTE_MS
    assert session["renewalCount"] == 1


async def test_no_renewal_goes_beyond_its_maximum_duration(client: HttpClient) -> None:
    session_id = await open_session(client, timeoutConfig={"timeoutMinutes": 60, "maxDurationMinutes": 60})

    response = await client.post(f"{SESSIONS}/{session_id}/renew")

    refusal = await response.json()
    assert response.status == 422
    assert refusal["code"] == "SESSION_RENEWAL_FAILED"
    assert refusal["details"]["maxDurationMinutes"] == 60


async def test_its_timeout_can_be_changed_while_it_lives(client: HttpClient) -> None:
    session_id = await open_session(client)

    response = await client.patch(f"{SESSIONS}/{session_id}/timeout", json={"timeoutMinutes": 60})

    session = await response.json()
    assert 59 * MINUTE_MS < session["timeRemaining"] <= 60 * MINUTE_MS
    assert session["timeoutConfig"]["timeoutMinutes"] == 60
    assert session["timeoutConfig"]["maxDurationMinutes"] == 720


async def test_its_metadata_can_be_changed_member_by_member(client: HttpClient) -> None:
    session_id = await open_session(client, metadata={"channel": "web", "draft": "Hel"})

    response = await client.patch(f"{SESSIONS}/{session_id}/metadata", json={"draft": None, "topic": "weather"})

    session = await response.json()
    assert session["metadata"] == {"channel": "web", "topic": "weather"}


async def test_left_alone_it_expires_and_says_so_again_and_again(client: HttpClient, redis: Redis) -> None:
    session_id = await open_session(client)
    await age(redis, session_id, 30 * MINUTE_MS)

    first = await client.get(f"{SESSIONS}/{session_id}")
    second = await client.post(f"{SESSIONS}/{session_id}/heartbeat")

    refusal = await first.json()
    assert (first.status, second.status) == (410, 410)
    assert refusal["code"] == "SESSION_EXPIRED"
    assert refusal["details"]["sessionId"] == session_id
    assert refusal["details"]["reason"] == "inactivity"
    assert refusal["details"]["expiresAt"].endswith("Z")


async def test_once_deleted_it_is_unknown(client: HttpClient) -> None:
    session_id = await open_session(client)

    deleted = await client.delete(f"{SESSIONS}/{session_id}")
    after = await client.get(f"{SESSIONS}/{session_id}")

    assert deleted.status == 200
    assert (await deleted.json())["success"] is True
    assert after.status == 404
    assert (await after.json())["code"] == "SESSION_NOT_FOUND"


async def test_long_after_its_end_it_is_unknown_too(client: HttpClient, redis: Redis) -> None:
    session_id = await open_session(client)
    await age(redis, session_id, (30 + 1440) * MINUTE_MS)

    response = await client.get(f"{SESSIONS}/{session_id}")

    assert response.status == 404
