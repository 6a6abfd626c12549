"""Responses to a user's token neither reveal the sessions of other users nor end them."""

from typing import Any

import pytest
from redis.asyncio import Redis

from service.sessions import listing as listing_module
from service.settings import Settings
from tests.aging import age
from tests.auth.conftest import authenticated_settings, token_headers
from tests.conftest import AGENT, USER, HttpClient
from tests.test_walkthrough import MINUTE_MS, SESSIONS

OTHER_USER = "11111111-2222-4333-8444-555555555555"
OTHER_AGENT = "00000000-0000-4000-8000-00000000000a"


@pytest.fixture
def settings() -> Settings:
    return authenticated_settings()


async def create(client: HttpClient, user_id: str, agent_id: str = AGENT) -> str:
    """Create a session of the user and return its id."""
    body = {"agentId": agent_id, "userId": user_id}
    response = await client.post(SESSIONS, json=body, headers=token_headers(user_id))
    assert response.status == 201
    return str((await response.json())["sessionId"])


async def list_as(client: HttpClient, user_id: str, **query: str) -> Any:
    return await (await client.get(SESSIONS, params=query, headers=token_headers(user_id))).json()


# Totals


def stats_of(number: int) -> dict[str, int]:
    return {"totalSessions": number, "activeSessions": number, "expiredSessions": 0}


@pytest.mark.parametrize("query", [{"agentId": AGENT}, {"nearExpiration": "false"}, {"nearExpiration": "true"}])
async def test_totals_of_a_user_do_not_count_sessions_of_others(
    client: HttpClient, redis: Redis, query: dict[str, str]
) -> None:
    for _ in range(3):
        await create(client, USER, OTHER_AGENT)
        await create(client, OTHER_USER)
    await age(redis, await create(client, OTHER_USER), 26 * MINUTE_MS)
    own = await list_as(client, USER, **query)

    expected = 3 if query == {"nearExpiration": "false"} else 0
    assert (len(own["sessions"]), own["total"], own["stats"]) == (expected, expected, stats_of(expected))


async def test_totals_of_a_user_count_the_sessions_that_match(client: HttpClient, redis: Redis) -> None:
    await create(client, USER)
    await create(client, USER, OTHER_AGENT)
    await age(redis, await create(client, USER), 26 * MINUTE_MS)
    await age(redis, await create(client, USER), 31 * MINUTE_MS)

    totals = [
        (await list_as(client, USER, limit="1", **query))["total"]
        for query in ({}, {"agentId": AGENT}, {"nearExpiration": "true"}, {"agentId": AGENT, "nearExpiration": "false"})
    ]

    assert totals == [3, 2, 1, 1]


async def test_the_total_of_a_user_counts_entries_behind_the_examined_ones(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await create(client, USER, OTHER_AGENT)
    monkeypatch.setattr(listing_module, "MAX_EXAMINED", 2)

    page = await list_as(client, USER, agentId=AGENT)

    assert (page["sessions"], page["total"]) == ([], 1)
