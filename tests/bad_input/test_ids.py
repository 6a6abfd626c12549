"""Invalid agent and user ids, and session ids of any shape."""

import pytest
from redis.asyncio import Redis
from yarl import URL

from service.sessions.keys import Keys
from tests.bad_input.helpers import SESSION_ROUTES, UNKNOWN_ID, call_route, create_with, invalid_fields
from tests.conftest import AGENT, USER, HttpClient
from tests.test_walkthrough import SESSIONS, open_session

pytestmark = pytest.mark.asyncio(loop_scope="package")

SESSION_IDS = {
    "unknown": UNKNOWN_ID,
    "not a UUID": "nonsense",
    "another version of UUID": "00000000-0000-1000-8000-000000000000",
    "one hyphen less": UNKNOWN_ID.replace("-", "", 1),
    "no hyphens": UNKNOWN_ID.replace("-", ""),
    "braces": "%7B" + UNKNOWN_ID + "%7D",
    "NUL": "%00",
    "NUL at the end": UNKNOWN_ID + "%00",
    "a newline at the end": UNKNOWN_ID + "%0a",
    "a space at the end": UNKNOWN_ID + "%20",
    "a path upwards": "..%2f..",
    "a path encoded twice": "..%252f..",
    "a hash tag": "%7Dx",
    "a pattern": "*",
    "the key of a tombstone": UNKNOWN_ID + ":tombstone",
    "long": "a" * 3000,
    "not ASCII": "%C3%A9%F0%9F%98%80",
    "not UTF-8": "%ff",
    "a surrogate": "%ed%a0%80",
    "a percent sign": "%25",
    "not an escape": "%zz",
}


@pytest.mark.parametrize("member", ["agentId", "userId"])
@pytest.mark.parametrize(
    "value",
    [None, 1, True, [], {}, "", "nonsense", AGENT.replace("-", ""), f"{{{AGENT}}}", f"urn:uuid:{AGENT}", AGENT + "\n"],
)
async def test_agent_and_user_ids_must_be_uuids_of_36_characters(
    service: HttpClient, member: str, value: object
) -> None:
    fields = await invalid_fields(await create_with(service, **{member: value}))

    assert fields == {member: "must be a UUID in the 36-character form"}


async def test_agent_and_user_ids_become_lower_case(service: HttpClient) -> None:
    response = await create_with(service, agentId=AGENT.upper(), userId=USER.upper())

    session = await response.json()
    assert (session["agentId"], session["userId"]) == (AGENT, USER)


@pytest.mark.parametrize("session_id", SESSION_IDS.values(), ids=SESSION_IDS)
@pytest.mark.parametrize(("method", "path"), SESSION_ROUTES)
async def test_a_session_id_of_any_shape_is_unknown(
    service: HttpClient, method: str, path: str, session_id: str
) -> None:
    response = await call_route(service, method, session_id, path)

    assert response.status == 404
    assert (await response.json())["code"] == "SESSION_NOT_FOUND"


@pytest.mark.parametrize(("method", "path"), SESSION_ROUTES)
async def test_session_ids_are_case_insensitive(
    service: HttpClient, shared_redis: Redis, method: str, path: str
) -> None:
    session_id = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
    keys = Keys("")
    await shared_redis.rename(keys.session(await open_session(service)), keys.session(session_id))

    response = await call_route(service, method, session_id.upper(), path)

    assert response.status == 200


async def test_the_error_has_the_decoded_id(service: HttpClient) -> None:
    response = await call_route(service, "GET", "a%00%22%3Cb%3E%C3%A9", "")

    assert (await response.json())["details"] == {"sessionId": 'a\x00"<b>é'}


@pytest.mark.parametrize("path", ["/../../livez", "/%2e%2e/%2e%2e/%2e%2e/livez", "//", "/a/b", "/a/heartbeat/"])
async def test_other_paths_below_sessions_are_not_ids(service: HttpClient, path: str) -> None:
    response = await service.delete(URL(SESSIONS + path, encoded=True))

    assert response.status in (404, 405)
    assert (await response.json())["success"] is False
