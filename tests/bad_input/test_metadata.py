"""Metadata that is invalid or too large, and unusual metadata that is kept exactly."""

import json
from typing import Any

import pytest
from redis.asyncio import Redis

from service.sessions.keys import Keys
from service.settings import MAX_METADATA_BYTES
from tests.bad_input.helpers import create_with, invalid_fields, patch_metadata, post_body
from tests.conftest import AGENT, USER, HttpClient
from tests.test_walkthrough import SESSIONS, get_session, open_session

pytestmark = pytest.mark.asyncio(loop_scope="package")

UNUSUAL_METADATA: dict[str, dict[str, object]] = {
    "empty": {},
    "the largest integer": {"a": 18446744073709551615},
    "the smallest integer": {"a": -9223372036854775808},
    "a huge float": {"a": 1e20},
    "the extremes of doubles": {"a": [1.7976931348623157e308, 5e-324, -0.0, 0.1]},
    "a long number in a string": {"a": "123456789012345678901234567890"},
    "a long number beside an escape": {"a": 12345678901234567890, "b": '\u2028\\"/'},
    "escaped control characters": {"\x00": "\x00\x01\x1f\x7f\r\n\t"},
    "emoji": {"👩‍👩‍👧‍👦": "🇺🇳🏴‍☠️"},
    "right to left": {"שלום": "مرحبا \u202e reversed"},
    "combining characters": {"e\u0301": "\u00e9", "Z\u0351\u036b": "\ufeff"},
    "empty keys and every type": {"": [None, True, False, [], {}, "", 0, {"": ""}]},
    "text that looks like code": {"__proto__": {"a": 1}, "'; return 1 --": "]]", "{ab}": "${x}", "a.b": "%s"},
}


def nested(depth: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    metadata: dict[str, Any] = value
    return metadata


def metadata_of_size(stored_bytes: int) -> dict[str, str]:
    return {"a": "x" * (stored_bytes - len(b'{"a":""}'))}


@pytest.mark.parametrize("metadata", UNUSUAL_METADATA.values(), ids=UNUSUAL_METADATA)
@pytest.mark.parametrize("escape_unicode", [True, False], ids=["escaped", "as UTF-8"])
async def test_metadata_is_returned_unchanged(
    service: HttpClient, metadata: dict[str, object], escape_unicode: bool
) -> None:
    body = json.dumps({"agentId": AGENT, "userId": USER, "metadata": metadata}, ensure_ascii=escape_unicode)

    created = await (await post_body(service, body.encode())).json()

    session = await get_session(service, created["sessionId"])
    assert json.dumps(created["metadata"], sort_keys=True) == json.dumps(metadata, sort_keys=True)
    assert session["metadata"] == created["metadata"]


@pytest.mark.parametrize("value", [[], "text", 1, True])
async def test_metadata_must_be_an_object(service: HttpClient, value: object) -> None:
    fields = await invalid_fields(await create_with(service, metadata=value))

    assert fields == {"metadata": "must be an object"}


@pytest.mark.parametrize("number", [18446744073709551616, -9223372036854775809, 10**30, -(10**30)])
async def test_integers_must_fit_into_64_bits(service: HttpClient, number: int) -> None:
    fields = await invalid_fields(await create_with(service, metadata={"a": [{"b": number}]}))

    assert fields["metadata"].startswith("holds an integer beyond 64 bits")


async def test_metadata_must_not_be_nested_too_deeply(service: HttpClient) -> None:
    fields = await invalid_fields(await create_with(service, metadata=nested(300)))

    assert fields == {"metadata": "is nested too deeply"}


async def test_metadata_may_have_a_hundred_levels(service: HttpClient) -> None:
    session_id = await open_session(service, metadata=nested(100))

    session = await get_session(service, session_id)
    assert session["metadata"] == nested(100)


async def test_metadata_may_have_ten_kibibytes(service: HttpClient, shared_redis: Redis) -> None:
    session_id = await open_session(service, metadata=metadata_of_size(MAX_METADATA_BYTES))

    stored = await shared_redis.hget(Keys("").session(session_id), "metadata")
    assert stored is not None
    assert len(stored) == 10_240


async def test_one_more_byte_of_metadata_is_too_much(service: HttpClient) -> None:
    fields = await invalid_fields(await create_with(service, metadata=metadata_of_size(MAX_METADATA_BYTES + 1)))

    assert fields == {"metadata": "must be at most 10240 bytes as JSON, not 10241"}


async def test_the_limit_does_not_count_white_space_and_escapes_of_the_request(service: HttpClient) -> None:
    metadata = {"a": "é" * ((MAX_METADATA_BYTES - 8) // 2)}
    body = json.dumps({"agentId": AGENT, "userId": USER, "metadata": metadata}, indent=8)

    response = await post_body(service, body.encode())

    assert response.status == 201


@pytest.mark.parametrize(
    ("patch", "error"),
    [
        ({"a": 10**30}, "holds an integer beyond 64 bits, near 1e+30"),
        ({"a": [{"b": -(2**63) - 1}]}, "holds an integer beyond 64 bits, near -9.223372036854776e+18"),
        (nested(300), "is nested too deeply"),
        (nested(900), "is nested too deeply"),
        ({"a": "x" * MAX_METADATA_BYTES}, "must be at most 10240 bytes as JSON, not 10264"),
    ],
    ids=["a huge integer", "a huge integer in a list", "depth 300", "depth 900", "too large"],
)
async def test_patched_metadata_has_the_same_limits(service: HttpClient, patch: object, error: str) -> None:
    fields = await invalid_fields(await patch_metadata(service, json.dumps(patch).encode()))

    assert fields == {"metadata": error}


async def test_a_patch_must_not_wrap_the_members_in_a_single_object(service: HttpClient) -> None:
    response = await patch_metadata(service, b'{"metadata": {"topic": "weather"}}')

    assert await invalid_fields(response) == {
        "metadata": "must not wrap the members; for a member of this name, send application/merge-patch+json"
    }


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"metadata": {"topic": "weather"}}', "application/merge-patch+json"),
        (b'{"metadata": {"topic": "weather"}, "channel": null}', "application/json"),
        (b'{"metadata": "weather"}', "application/json"),
    ],
)
async def test_a_member_may_be_named_metadata(service: HttpClient, body: bytes, content_type: str) -> None:
    response = await patch_metadata(service, body, content_type)

    assert "metadata" in (await response.json())["metadata"]


@pytest.mark.parametrize("member", ["metadata", "timeoutConfig"])
async def test_null_means_that_a_member_is_absent(service: HttpClient, member: str) -> None:
    response = await service.post(SESSIONS, json={"agentId": AGENT, "userId": USER, member: None})

    session = await response.json()
    assert (response.status, session["metadata"], session["timeoutConfig"]["timeoutMinutes"]) == (201, {}, 30)
