"""ETag and If-Match: responses contain the revision of a session, and changes can require one."""

import pytest

from tests.api.raw_http import exchange
from tests.bad_input.helpers import invalid_fields
from tests.conftest import AGENT, USER, HttpClient
from tests.test_walkthrough import SESSIONS, open_session

READS = {"get": ("GET", ""), "head": ("HEAD", ""), "heartbeat": ("POST", "/heartbeat"), "renew": ("POST", "/renew")}
CHANGES = {"timeout": {"timeoutMinutes": 60}, "metadata": {"channel": "phone"}}

pytestmark = pytest.mark.asyncio(loop_scope="package")
each_change = pytest.mark.parametrize(("part", "change"), CHANGES.items(), ids=CHANGES)


async def test_a_new_session_has_revision_1(service: HttpClient) -> None:
    created = await service.post(SESSIONS, json={"agentId": AGENT, "userId": USER})

    assert created.headers["ETag"] == '"1"'


@pytest.mark.parametrize(("method", "path"), READS.values(), ids=READS)
async def test_every_response_with_a_session_has_its_revision(service: HttpClient, method: str, path: str) -> None:
    session_id = await open_session(service)
    await service.patch(f"{SESSIONS}/{session_id}/metadata", json={"channel": "phone"})

    response = await service.request(method, f"{SESSIONS}/{session_id}{path}")

    assert (response.status, response.headers["ETag"]) == (200, '"2"')


@pytest.mark.parametrize(
    "version", ["HTTP/1.0", "HTTP/1.1\r\nHost: localhost\r\nConnection: close"], ids=["1.0", "close"]
)
async def test_the_last_response_of_a_connection_has_the_revision_too(service: HttpClient, version: str) -> None:
    session_id = await open_session(service)

    received = await exchange(service, f"GET {SESSIONS}/{session_id} {version}\r\n\r\n".encode())

    assert b'\r\nETag: "1"\r\n' in received


async def test_other_responses_have_no_revision(service: HttpClient) -> None:
    session_id = await open_session(service)

    responses = [await service.get(SESSIONS), await service.delete(f"{SESSIONS}/{session_id}")]

    assert ["ETag" in response.headers for response in responses] == [False, False]


@each_change
async def test_a_change_increments_the_revision(service: HttpClient, part: str, change: object) -> None:
    session_id = await open_session(service)

    response = await service.patch(f"{SESSIONS}/{session_id}/{part}", json=change, headers={"If-Match": '"1"'})

    assert (response.status, response.headers["ETag"]) == (200, '"2"')


@each_change
async def test_a_change_of_another_revision_fails_with_the_current_one(
    service: HttpClient, part: str, change: object
) -> None:
    session_id = await open_session(service)
    await service.patch(f"{SESSIONS}/{session_id}/metadata", json={"topic": "weather"})

    response = await service.patch(f"{SESSIONS}/{session_id}/{part}", json=change, headers={"If-Match": '"1"'})

    error = await response.json()
    assert (response.status, error["code"]) == (412, "PRECONDITION_FAILED")
    assert error["details"] == {"sessionId": session_id, "etag": '"2"'}
    assert response.headers["ETag"] == '"2"'


@each_change
async def test_a_malformed_if_match_is_an_error(service: HttpClient, part: str, change: object) -> None:
    session_id = await open_session(service)

    response = await service.patch(f"{SESSIONS}/{session_id}/{part}", json=change, headers={"If-Match": "1"})

    assert list(await invalid_fields(response)) == ["If-Match"]
