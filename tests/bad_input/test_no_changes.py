"""Rejected requests do not change Redis."""

import asyncio

import pytest
from redis.asyncio import Redis

from service.settings import MAX_METADATA_BYTES
from tests.aging import age
from tests.bad_input.helpers import (
    JSON,
    SESSION_ROUTES,
    UNKNOWN_ID,
    call_route,
    session_data,
)
from tests.conftest import AGENT, USER, HttpClient
from tests.test_walkthrough import MINUTE_MS, SESSIONS, open_session

SUFFIXES = [":tombstone", "%3Atombstone", "%0a", "%00", "%20", "*", "0"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"agentId": AGENT},
        {"agentId": AGENT, "userId": USER, "metadata": []},
        {"agentId": AGENT, "userId": USER, "timeoutConfig": {"timeoutMinutes": 1}},
    ],
)
async def test_a_rejected_creation_writes_nothing(client: HttpClient, redis: Redis, body: object) -> None:
    response = await client.post(SESSIONS, json=body)

    assert response.status == 400
    assert await session_data(redis) == {}


@pytest.mark.parametrize("body", [b"", b"[]", b'{"timeoutMinutes":1}', b'{"timeoutMinutes":60,"x":1}'])
async def test_a_rejected_timeout_update_changes_nothing(client: HttpClient, redis: Redis, body: bytes) -> None:
    session_id = await open_session(client)
    before = await session_data(redis)

    response = await client.patch(f"{SESSIONS}/{session_id}/timeout", data=body, headers=JSON)

    assert response.status == 400
    assert await session_data(redis) == before


async def test_a_timeout_update_that_would_expire_the_session_changes_nothing(client: HttpClient, redis: Redis) -> None:
    session_id = await open_session(client)
    await age(redis, session_id, 20 * MINUTE_MS)
    before = await session_data(redis)

    response = await client.patch(f"{SESSIONS}/{session_id}/timeout", json={"timeoutMinutes": 10})

    assert response.status == 422
    assert await session_data(redis) == before


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"a":99999999999999999999}', b'{"a":"%b"}' % (b"x" * MAX_METADATA_BYTES)]
)
async def test_a_rejected_metadata_patch_changes_nothing(client: HttpClient, redis: Redis, body: bytes) -> None:
    session_id = await open_session(client, metadata={"channel": "web"})
    before = await session_data(redis)

    response = await client.patch(f"{SESSIONS}/{session_id}/metadata", data=body, headers=JSON)

    assert response.status == 400
    assert await session_data(redis) == before


@pytest.mark.parametrize(("method", "path"), SESSION_ROUTES)
async def test_a_request_for_an_unknown_session_writes_nothing(
    client: HttpClient, redis: Redis, method: str, path: str
) -> None:
    await call_route(client, method, UNKNOWN_ID, path)

    assert await session_data(redis) == {}


@pytest.mark.parametrize(("method", "path"), SESSION_ROUTES)
async def test_an_id_with_a_suffix_does_not_reach_the_session(
    client: HttpClient, redis: Redis, method: str, path: str
) -> None:
    session_id = await open_session(client)
    before = await session_data(redis)

    responses = await asyncio.gather(*(call_route(client, method, session_id + suffix, path) for suffix in SUFFIXES))

    assert [response.status for response in responses] == [404] * len(SUFFIXES)
    assert await session_data(redis) == before
