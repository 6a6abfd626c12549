"""Idempotency-Key: a repeated creation returns the session of the first one."""

import asyncio
from collections import Counter

from aiohttp import ClientResponse
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.settings import Settings
from tests.aging import age
from tests.bad_input.helpers import invalid_fields
from tests.conftest import AGENT, USER, HttpClient, ServiceServer
from tests.test_walkthrough import MINUTE_MS, SESSIONS

KEY = "8e03978e-40d5-43e8-bc93-6894a57f9324"
BODY = {"agentId": AGENT, "userId": USER}


async def create(client: HttpClient, key: str = KEY, **members: object) -> ClientResponse:
    return await client.post(SESSIONS, json={**BODY, **members}, headers={"Idempotency-Key": key})


async def session_id_of(response: ClientResponse) -> str:
    session_id: str = (await response.json())["sessionId"]
    return session_id


async def test_the_first_response_is_that_of_a_creation(client: HttpClient) -> None:
    first = await create(client)

    assert first.status == 201
    assert first.headers["Location"] == f"{SESSIONS}/{await session_id_of(first)}"
    assert "Idempotency-Replayed" not in first.headers


async def test_a_repeated_creation_returns_the_same_session(client: HttpClient) -> None:
    first = await create(client, metadata={"a": 1, "b": 2})

    second = await create(client, metadata={"b": 2, "a": 1})

    assert second.status == 201
    assert await session_id_of(second) == await session_id_of(first)
    assert second.headers["Location"] == first.headers["Location"]
    assert second.headers["Idempotency-Replayed"] == "true"


async def test_a_repeated_creation_returns_the_current_state(client: HttpClient, redis: Redis) -> None:
    session_id = await session_id_of(await create(client))
    await age(redis, session_id, 10 * MINUTE_MS)
    await client.patch(f"{SESSIONS}/{session_id}/metadata", json={"channel": "phone"})

    second = await create(client)

    session = await second.json()
    assert second.headers["ETag"] == '"2"'
    assert session["metadata"] == {"channel": "phone"}
    assert session["timeRemaining"] <= 20 * MINUTE_MS


async def test_another_body_with_the_same_key_is_an_error(client: HttpClient) -> None:
    await create(client)

    second = await create(client, metadata={"channel": "phone"})

    assert second.status == 422
    assert (await second.json())["code"] == "IDEMPOTENCY_KEY_REUSED"


async def test_a_key_is_the_same_with_and_without_quotes(client: HttpClient) -> None:
    first = await create(client, f'"{KEY}"')

    second = await create(client, KEY)

    assert await session_id_of(second) == await session_id_of(first)


async def test_repeating_the_creation_of_an_expired_session_returns_410(client: HttpClient, redis: Redis) -> None:
    session_id = await session_id_of(await create(client))
    await age(redis, session_id, 30 * MINUTE_MS)

    second = await create(client)

    error = await second.json()
    assert (second.status, error["code"]) == (410, "SESSION_EXPIRED")
    assert error["details"]["sessionId"] == session_id


async def test_repeating_the_creation_of_a_deleted_session_returns_404(client: HttpClient) -> None:
    session_id = await session_id_of(await create(client))
    await client.delete(f"{SESSIONS}/{session_id}")

    second = await create(client)

    assert (second.status, (await second.json())["code"]) == (404, "SESSION_NOT_FOUND")


async def test_an_invalid_request_does_not_use_its_key(client: HttpClient) -> None:
    await invalid_fields(await create(client, metadata=[]))

    second = await create(client)

    assert (second.status, "Idempotency-Replayed" in second.headers) == (201, False)


async def test_other_requests_ignore_the_key(client: HttpClient) -> None:
    session_id = await session_id_of(await create(client))

    renewals = [await client.post(f"{SESSIONS}/{session_id}/renew", headers={"Idempotency-Key": KEY}) for _ in range(2)]

    assert [(await renewal.json())["renewalCount"] for renewal in renewals] == [1, 2]


async def test_a_malformed_key_is_an_error(client: HttpClient) -> None:
    assert list(await invalid_fields(await create(client, "a b"))) == ["Idempotency-Key"]


async def test_a_hundred_concurrent_creations_on_three_replicas_create_one_session(
    aiohttp_client: AiohttpClient, redis: Redis
) -> None:
    replicas: list[HttpClient] = [await aiohttp_client(ServiceServer(Settings(), redis)) for _ in range(3)]

    responses = await asyncio.gather(*(create(replicas[number % 3]) for number in range(100)))

    assert Counter(response.status for response in responses) == {201: 100}
    (session_id,) = {await session_id_of(response) for response in responses}
    assert len(await redis.keys("session:{??}:????????-????-4???-????-????????????")) == 1
    assert await redis.zrange(f"sessions:user:{{{USER}}}", 0, -1) == [session_id.encode()]
    assert await redis.zrange(f"sessions:agent:{{{AGENT}}}", 0, -1) == [session_id.encode()]
