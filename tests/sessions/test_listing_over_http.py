"""Listing sessions over HTTP: the response, cursors and invalid parameters."""

import base64
import json
from typing import Any

import pytest
from aiohttp import ClientResponse
from redis.asyncio import Redis
from yarl import URL

from service.api.app_keys import SHARED_SECRET
from service.sessions.cursors import Cursors
from service.sessions.listing import Position, SessionFilter
from tests.aging import age
from tests.bad_input.helpers import invalid_fields
from tests.conftest import AGENT, USER, HttpClient
from tests.test_walkthrough import MINUTE_MS, SESSIONS, open_session

OTHER = "00000000-0000-4000-8000-000000000001"
NOT_A_CURSOR = {"cursor": "must be the nextCursor of a page"}
OTHER_FILTERS = {"cursor": "belongs to a listing with other filters"}


async def page(client: HttpClient, **query: str | int) -> dict[str, Any]:
    response = await client.get(SESSIONS, params=query)
    assert response.status == 200
    body: dict[str, Any] = await response.json()
    return body


async def get_with(client: HttpClient, query: str) -> ClientResponse:
    return await client.get(URL(f"{SESSIONS}?{query}", encoded=True))


def ids(*pages: dict[str, Any]) -> list[str]:
    return [session["sessionId"] for page in pages for session in page["sessions"]]


def forge(parts: object) -> str:
    """Encode a cursor without the shared secret."""
    payload = base64.urlsafe_b64encode(json.dumps(parts, separators=(",", ":")).encode()).rstrip(b"=").decode()
    return "0" * 32 + payload


async def cursors_of(client: HttpClient) -> Cursors:
    """The cursors that the service accepts from callers that are not users."""
    await client.get(SESSIONS)  # loads the shared secret
    return Cursors(client.app[SHARED_SECRET], None)


async def test_an_empty_store_has_an_empty_page(client: HttpClient) -> None:
    assert await page(client) == {
        "sessions": [],
        "total": 0,
        "stats": {"totalSessions": 0, "activeSessions": 0, "expiredSessions": 0},
        "nextCursor": None,
    }


async def test_a_session_is_listed_as_it_is_read(client: HttpClient) -> None:
    session_id = await open_session(client, metadata={"größe": ["\U0001f600"]})
    read = await (await client.get(f"{SESSIONS}/{session_id}")).json()

    (listed,) = (await page(client))["sessions"]

    assert listed.keys() == read.keys()
    assert {**listed, "timeRemaining": None} == {**read, "timeRemaining": None}


async def test_a_listing_must_not_be_cached(client: HttpClient) -> None:
    response = await client.get(SESSIONS)

    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Content-Type"] == "application/json"


async def test_cursors_lead_from_page_to_page(client: HttpClient) -> None:
    session_ids = [await open_session(client) for _ in range(5)]

    first = await page(client, limit=2)
    second = await page(client, limit=2, cursor=first["nextCursor"])
    third = await page(client, limit=2, cursor=second["nextCursor"])

    assert [len(page["sessions"]) for page in (first, second, third)] == [2, 2, 1]
    assert sorted(ids(first, second, third)) == sorted(session_ids)
    assert third["nextCursor"] is None


async def test_the_limit_may_change_between_pages(client: HttpClient) -> None:
    session_ids = [await open_session(client) for _ in range(5)]

    first = await page(client, limit=1)
    second = await page(client, limit=1000, cursor=first["nextCursor"])

    assert sorted(ids(first, second)) == sorted(session_ids)


async def test_a_page_has_at_most_a_hundred_sessions_by_default(client: HttpClient) -> None:
    session_ids = [await open_session(client) for _ in range(101)]

    first = await page(client)
    second = await page(client, cursor=first["nextCursor"])

    assert len(first["sessions"]) == 100
    assert sorted(ids(first, second)) == sorted(session_ids)


@pytest.mark.parametrize("query", [{"userId": USER}, {"agentId": AGENT}, {"userId": USER.upper(), "agentId": AGENT}])
async def test_a_listing_can_be_filtered_by_user_and_agent(client: HttpClient, query: dict[str, str]) -> None:
    matching = await open_session(client)
    await open_session(client, userId=OTHER, agentId=OTHER)

    assert ids(await page(client, **query)) == [matching]


async def test_a_listing_can_be_filtered_by_near_expiration(client: HttpClient, redis: Redis) -> None:
    far, near = await open_session(client), await open_session(client)
    await age(redis, near, 26 * MINUTE_MS)

    assert ids(await page(client, nearExpiration="true")) == [near]
    assert ids(await page(client, nearExpiration="false")) == [far]


async def test_stats_count_all_sessions_for_every_filter(client: HttpClient, redis: Redis) -> None:
    await open_session(client)
    await open_session(client, userId=OTHER)
    await age(redis, await open_session(client), 26 * MINUTE_MS)

    filtered = await page(client, userId=OTHER)

    assert filtered["total"] == 1
    assert filtered["stats"] == {"totalSessions": 3, "activeSessions": 3, "expiredSessions": 0}


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("userid=" + USER, {"userid": "is not a parameter of this request"}),
        ("sessionId=x", {"sessionId": "is not a parameter of this request"}),
        ("%ff=x", {"\ufffd": "is not a parameter of this request"}),
        ("=x", {"": "is not a parameter of this request"}),
        (f"userId={USER}&userId={USER}", {"userId": "must not be repeated"}),
        ("limit=1&limit=2", {"limit": "must not be repeated"}),
        ("userId=", {"userId": "must be a UUID in the 36-character form"}),
        ("userId", {"userId": "must be a UUID in the 36-character form"}),
        ("agentId=nonsense", {"agentId": "must be a UUID in the 36-character form"}),
        (f"agentId={AGENT}%00", {"agentId": "must be a UUID in the 36-character form"}),
        ("nearExpiration=1", {"nearExpiration": "must be true or false"}),
        ("nearExpiration=True", {"nearExpiration": "must be true or false"}),
        ("nearExpiration=", {"nearExpiration": "must be true or false"}),
        (
            "limit=0&agentId=1&nearExpiration=maybe&x=1&cursor=%20",
            {
                "agentId": "must be a UUID in the 36-character form",
                "nearExpiration": "must be true or false",
                "limit": "must be a whole number between 1 and 1000",
                "cursor": "must be the nextCursor of a page",
                "x": "is not a parameter of this request",
            },
        ),
    ],
)
async def test_all_invalid_parameters_are_reported(client: HttpClient, query: str, fields: dict[str, str]) -> None:
    assert await invalid_fields(await get_with(client, query)) == fields


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "1.5", "1e2", "%2B5", "", "ten", "%EF%BC%91", "9" * 5000, "0x10"])
async def test_the_limit_must_be_a_whole_number_within_its_bounds(client: HttpClient, limit: str) -> None:
    assert await invalid_fields(await get_with(client, f"limit={limit}")) == {
        "limit": "must be a whole number between 1 and 1000"
    }


async def test_at_most_twenty_invalid_parameters_are_reported(client: HttpClient) -> None:
    query = "&".join(f"x{number}=1" for number in range(500))

    assert len(await invalid_fields(await get_with(client, query))) == 20


@pytest.mark.parametrize("parts", [[], None, [None, None, None, 0, "1", "id"], [None, None, None, 256, "1", "id"]])
async def test_a_forged_cursor_is_rejected(client: HttpClient, parts: object) -> None:
    assert await invalid_fields(await get_with(client, f"cursor={forge(parts)}")) == NOT_A_CURSOR


@pytest.mark.parametrize(
    "text", ["", "nonsense", "%00", "%C3%A9", "%ff", "====", "W10=", "W1", "A" * 401, "0" * 32, "0" * 432, "0" * 433]
)
async def test_a_cursor_in_another_encoding_is_rejected(client: HttpClient, text: str) -> None:
    assert await invalid_fields(await get_with(client, f"cursor={text}")) == NOT_A_CURSOR


async def test_a_modified_cursor_is_rejected(client: HttpClient) -> None:
    cursor = (await cursors_of(client)).encode_position(SessionFilter(), Position(7, "1700000000000", "07"))

    assert await invalid_fields(await get_with(client, f"cursor={cursor[:-1]}")) == NOT_A_CURSOR
    assert await invalid_fields(await get_with(client, f"cursor={cursor}A")) == NOT_A_CURSOR
    assert await invalid_fields(await get_with(client, f"cursor={'0' * 32}{cursor[32:]}")) == NOT_A_CURSOR
    assert (await get_with(client, f"cursor={cursor}")).status == 200


@pytest.mark.parametrize(
    "query",
    ["", f"userId={USER}&agentId={AGENT}", f"agentId={USER}", f"userId={OTHER}", f"userId={USER}&nearExpiration=false"],
)
async def test_a_cursor_with_other_filters_is_rejected(client: HttpClient, query: str) -> None:
    await open_session(client)
    await open_session(client)
    cursor = (await page(client, userId=USER, limit=1))["nextCursor"]

    assert await invalid_fields(await get_with(client, f"{query}&cursor={cursor}")) == OTHER_FILTERS


async def test_an_invalid_filter_is_reported_without_its_cursor(client: HttpClient) -> None:
    cursor = (await cursors_of(client)).encode_position(SessionFilter(user_id=USER), Position(0, "1700000000000", "07"))

    assert (await invalid_fields(await get_with(client, f"cursor={cursor}&userId=1"))).keys() == {"userId"}
