"""Bulk revocation over HTTP: responses, cursors and invalid parameters."""

from collections import Counter
from typing import Any

import pytest
from redis.asyncio import Redis

from service.sessions import revocation as revocation_module
from service.sessions.index_scan import Entry
from service.sessions.listing import Position, SessionFilter
from service.sessions.revocation import Remainder
from service.sessions.session import new_session_id
from tests.bad_input.helpers import invalid_fields
from tests.conftest import AGENT, USER, HttpClient
from tests.redis_contents import KEYS
from tests.sessions.revocation import (
    BOTH_FILTER,
    OTHER_USER,
    USER_FILTER,
)
from tests.sessions.test_listing_over_http import cursors_of, forge
from tests.test_walkthrough import SESSIONS, open_session


async def test_a_request_ends_the_sessions_of_a_user(client: HttpClient) -> None:
    session_ids = [await open_session(client) for _ in range(3)]
    other = await open_session(client, userId=OTHER_USER)

    response = await client.delete(SESSIONS, params={"userId": USER.upper()})

    assert response.status == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert await response.json() == {"revoked": 3, "more": False, "nextCursor": None}
    assert [(await client.get(f"{SESSIONS}/{session_id}")).status for session_id in [*session_ids, other]] == [
        404
    ] * 3 + [200]


async def test_a_creation_that_was_revoked_is_409(
    client: HttpClient, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = new_session_id()
    monkeypatch.setattr("service.sessions.creation.new_session_id", lambda *_: session_id)
    await redis.zadd(KEYS.user(USER), {session_id: 1})
    await client.delete(SESSIONS, params={"userId": USER})

    response = await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER})

    error = await response.json()
    assert response.status == 409
    assert error["code"] == "SESSION_REVOKED"
    assert error["details"] == {"agentId": AGENT, "userId": USER}


@pytest.fixture
def two_per_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation_module, "MAX_REVOKED", 2)


@pytest.mark.usefixtures("two_per_call")
@pytest.mark.parametrize("query", [{"userId": USER}, {"agentId": AGENT}, {"agentId": AGENT, "userId": USER.upper()}])
async def test_a_cursor_continues_a_revocation(client: HttpClient, query: dict[str, str]) -> None:
    session_ids = [await open_session(client) for _ in range(5)]

    first = await revoke(client, **query)
    second = await revoke(client, **query, cursor=first["nextCursor"])
    third = await revoke(client, **query, cursor=second["nextCursor"])

    assert [(body["revoked"], body["more"]) for body in (first, second, third)] == [(2, True), (2, True), (1, False)]
    assert third["nextCursor"] is None
    assert {(await client.get(f"{SESSIONS}/{session_id}")).status for session_id in session_ids} == {404}


async def revoke(client: HttpClient, **query: str) -> dict[str, Any]:
    response = await client.delete(SESSIONS, params=query)
    assert response.status == 200
    body: dict[str, Any] = await response.json()
    return body


@pytest.mark.usefixtures("two_per_call")
@pytest.mark.parametrize("query", [{"agentId": AGENT}, {"userId": OTHER_USER}, {"agentId": AGENT, "userId": USER}])
async def test_a_cursor_with_other_filters_is_rejected(client: HttpClient, query: dict[str, str]) -> None:
    session_ids = [await open_session(client) for _ in range(5)]
    cursor = (await revoke(client, userId=USER))["nextCursor"]

    rejected = await client.delete(SESSIONS, params={**query, "cursor": cursor})

    assert await invalid_fields(rejected) == {"cursor": "belongs to a revocation with other filters"}
    assert Counter([(await client.get(f"{SESSIONS}/{id_}")).status for id_ in session_ids]) == {404: 2, 200: 3}


async def test_cursors_of_listings_and_revocations_are_not_interchangeable(client: HttpClient) -> None:
    listing_cursor = (await cursors_of(client)).encode_position(
        SessionFilter(user_id=USER), Position(0, "1700000000000", "07")
    )
    revocation_cursor = (await cursors_of(client)).encode_remainder(USER_FILTER, REMAINDER)

    revoking = await client.delete(SESSIONS, params={"userId": USER, "cursor": listing_cursor})
    listing = await client.get(SESSIONS, params={"userId": USER, "cursor": revocation_cursor})

    assert await invalid_fields(revoking) == {"cursor": "must be the nextCursor of a revocation"}
    assert await invalid_fields(listing) == {"cursor": "must be the nextCursor of a page"}


async def test_a_forged_cursor_is_rejected(client: HttpClient) -> None:
    cursor = forge([None, USER, 0, "1", "id", "2", "id"])

    rejected = await client.delete(SESSIONS, params={"userId": USER, "cursor": cursor})

    assert await invalid_fields(rejected) == {"cursor": "must be the nextCursor of a revocation"}


async def test_a_cursor_contains_the_filter_and_the_remainder(client: HttpClient) -> None:
    cursors = await cursors_of(client)
    cursor = cursors.encode_remainder(BOTH_FILTER, REMAINDER)

    assert cursors.decode_remainder(cursor) == (BOTH_FILTER, REMAINDER)
    assert await revoke(client, agentId=AGENT, userId=USER, cursor=cursor) == {
        "revoked": 0,
        "more": False,
        "nextCursor": None,
    }


REMAINDER = Remainder(0, Entry("1700000000000", AGENT), Entry("1700000000001", USER))
NEITHER = dict.fromkeys(("agentId", "userId"), "at least one of agentId and userId is required")


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ({}, NEITHER),
        ({"userid": USER}, {**NEITHER, "userid": "is not a parameter of this request"}),
        ({"userId": ""}, {"userId": "must be a UUID in the 36-character form"}),
        ({"userId": USER, "agentID": AGENT}, {"agentID": "is not a parameter of this request"}),
        ({"userId": USER, "limit": "1"}, {"limit": "is not a parameter of this request"}),
        ({"cursor": "A"}, {**NEITHER, "cursor": "must be the nextCursor of a revocation"}),
        ({"userId": USER, "nearExpiration": "true"}, {"nearExpiration": "is not a parameter of this request"}),
        ([("userId", USER), ("userId", OTHER_USER)], {"userId": "must not be repeated"}),
        ({"userId": USER, "agentId": "*"}, {"agentId": "must be a UUID in the 36-character form"}),
    ],
)
async def test_an_invalid_request_ends_no_session(
    client: HttpClient, query: dict[str, str], fields: dict[str, str]
) -> None:
    session_id = await open_session(client)

    rejected = await client.delete(SESSIONS, params=query)

    assert await invalid_fields(rejected) == fields
    assert (await client.get(f"{SESSIONS}/{session_id}")).status == 200


async def test_an_invalid_filter_is_reported_without_its_cursor(client: HttpClient) -> None:
    cursor = (await cursors_of(client)).encode_remainder(BOTH_FILTER, REMAINDER)

    rejected = await client.delete(SESSIONS, params={"userId": "1", "cursor": cursor})

    assert await invalid_fields(rejected) == {"userId": "must be a UUID in the 36-character form"}
