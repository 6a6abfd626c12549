"""Request bodies that are not JSON objects, or lack members."""

import pytest

from tests.bad_input.helpers import create_with, invalid_fields, patch_metadata, post_body
from tests.conftest import HttpClient
from tests.test_walkthrough import open_session

pytestmark = pytest.mark.asyncio(loop_scope="package")

INVALID_JSON = {
    "empty": b"",
    "white space": b" \r\n",
    "truncated": b'{"agentId":',
    "a word": b"nonsense",
    "single quotes": b"{'agentId':1}",
    "a trailing comma": b'{"agentId":1,}',
    "a comment": b"{} // nothing",
    "two documents": b"{}{}",
    "a raw NUL": b'{"agentId":"\x00"}',
    "a raw control character": b'{"agentId":"\x1f"}',
    "a lone high surrogate": rb'{"agentId":"\ud800"}',
    "a lone low surrogate": rb'{"metadata":{"\udc00":1}}',
    "a surrogate in UTF-8": b'{"agentId":"\xed\xa0\x80"}',
    "invalid UTF-8": b'{"agentId":"\xff"}',
    "overlong UTF-8": b'{"agentId":"\xc0\xaf"}',
    "UTF-16": '{"agentId":1}'.encode("utf-16"),
    "NaN": b'{"metadata":{"a":NaN}}',
    "Infinity": b'{"metadata":{"a":Infinity}}',
    "minus Infinity": b'{"timeoutConfig":{"timeoutMinutes":-Infinity}}',
    "a number beyond doubles": b'{"metadata":{"a":1e400}}',
    "an integer beyond doubles": b'{"metadata":{"a":' + b"9" * 400 + b"}}",
    "depth 2000": b'{"metadata":' + b'{"a":' * 2000 + b"1" + b"}" * 2001,
    "depth 2000 in lists": b'{"metadata":{"a":' + b"[" * 2000 + b"]" * 2000 + b"}}",
    "depth 1000 around a huge integer": b'{"metadata":' + b'{"a":' * 1000 + b"9" * 30 + b"}" * 1001,
}
NOT_OBJECTS = [b"null", b"[]", b'"text"', b"1", b"true"]


@pytest.mark.parametrize("body", INVALID_JSON.values(), ids=INVALID_JSON)
async def test_a_creation_must_be_json(service: HttpClient, body: bytes) -> None:
    fields = await invalid_fields(await post_body(service, body))

    assert list(fields) == ["body"]


@pytest.mark.parametrize("body", INVALID_JSON.values(), ids=INVALID_JSON)
async def test_a_metadata_patch_must_be_json(service: HttpClient, body: bytes) -> None:
    fields = await invalid_fields(await patch_metadata(service, body))

    assert list(fields) == ["body"]


@pytest.mark.parametrize("body", NOT_OBJECTS)
async def test_a_creation_must_be_an_object(service: HttpClient, body: bytes) -> None:
    fields = await invalid_fields(await post_body(service, body))

    assert fields == {"body": "must be an object"}


@pytest.mark.parametrize("body", NOT_OBJECTS)
async def test_a_metadata_patch_must_be_an_object(service: HttpClient, body: bytes) -> None:
    fields = await invalid_fields(await patch_metadata(service, body))

    assert fields == {"body": "must be an object"}


async def test_the_error_names_missing_members(service: HttpClient) -> None:
    fields = await invalid_fields(await post_body(service, b"{}"))

    assert fields == {"agentId": "is required", "userId": "is required"}


async def test_the_error_names_every_invalid_member(service: HttpClient) -> None:
    timeout = {"timeoutMinutes": "5", "autoRenew": 1, "maxDurationMinutes": [], "warningThresholdMinutes": {}, "x": 1}

    response = await create_with(service, agentId=1, userId="x", metadata=[], timeoutConfig=timeout)

    assert sorted(await invalid_fields(response)) == [
        "agentId",
        "metadata",
        "timeoutConfig.autoRenew",
        "timeoutConfig.maxDurationMinutes",
        "timeoutConfig.timeoutMinutes",
        "timeoutConfig.warningThresholdMinutes",
        "timeoutConfig.x",
        "userId",
    ]


async def test_the_error_has_a_sentence_for_people(service: HttpClient) -> None:
    response = await post_body(service, b"{}")

    error = await response.json()
    assert error["success"] is False
    assert error["error"]["code"] == "VALIDATION_ERROR"
    assert error["error"]["details"] == "agentId: is required; userId: is required"


@pytest.mark.parametrize(
    "members", [{"nonsense": {"deep": [1]}, "agent_id": None}, {"nonsense": 10**30}], ids=["any value", "huge integer"]
)
async def test_a_creation_ignores_unknown_members(service: HttpClient, members: dict[str, object]) -> None:
    await open_session(service, **members)


async def test_a_client_cannot_choose_the_id_of_a_session(service: HttpClient) -> None:
    assert await open_session(service, sessionId="mine") != "mine"
