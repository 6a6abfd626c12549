"""What the service refuses, in which words, and that a refusal changes nothing."""

import gzip
import http.client
import json
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientResponse
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis
from yarl import URL

from service.settings import MAX_BODY_BYTES, MAX_METADATA_BYTES, Settings
from tests.aging import age
from tests.conftest import AGENT, USER, HttpClient, ServiceServer, StartReplica
from tests.redis_server import RedisServer
from tests.replica import Replica
from tests.test_walkthrough import MINUTE_MS, SESSIONS, open_session

JSON = {"Content-Type": "application/json"}
UNKNOWN = "00000000-0000-4000-8000-000000000000"
LONG_UNKNOWN = "a" * 3000

NEW = json.dumps({"agentId": AGENT, "userId": USER}).encode()

MALFORMED = {
    "empty": b"",
    "blank": b" \r\n",
    "cut short": b'{"agentId":',
    "not JSON": b"nonsense",
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

KEPT = {
    "nothing": {},
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
    "empty keys and every kind of value": {"": [None, True, False, [], {}, "", 0, {"": ""}]},
    "what looks like code": {"__proto__": {"a": 1}, "'; return 1 --": "]]", "{ab}": "${x}", "a.b": "%s"},
}

ID_SHAPES = {
    "unknown": UNKNOWN,
    "not a UUID": "nonsense",
    "another version of UUID": "00000000-0000-1000-8000-000000000000",
    "one hyphen less": UNKNOWN.replace("-", "", 1),
    "no hyphens": UNKNOWN.replace("-", ""),
    "braces": "%7B" + UNKNOWN + "%7D",
    "NUL": "%00",
    "NUL behind": UNKNOWN + "%00",
    "a newline behind": UNKNOWN + "%0a",
    "a blank behind": UNKNOWN + "%20",
    "a path upwards": "..%2f..",
    "a path encoded twice": "..%252f..",
    "a hash tag": "%7Dx",
    "a pattern": "*",
    "its tombstone": UNKNOWN + ":tombstone",
    "long": LONG_UNKNOWN,
    "not ASCII": "%C3%A9%F0%9F%98%80",
    "not UTF-8": "%ff",
    "a surrogate": "%ed%a0%80",
    "a percent sign": "%25",
    "no escape": "%zz",
}

VERBS = [
    ("GET", ""),
    ("DELETE", ""),
    ("POST", "/heartbeat"),
    ("POST", "/renew"),
    ("PATCH", "/timeout"),
    ("PATCH", "/metadata"),
]


async def send(client: HttpClient, body: bytes, **headers: str) -> ClientResponse:
    return await client.post(SESSIONS, data=body, headers={**JSON, **headers})


async def fields_refused(response: ClientResponse) -> dict[str, str]:
    assert response.status == 400
    refusal = await response.json()
    assert refusal["code"] == "VALIDATION_ERROR"
    fields: dict[str, str] = refusal["details"]["fields"]
    return fields


async def error_for_reply(client: HttpClient, **members: object) -> dict[str, str]:
    return await fields_refused(await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER, **members}))


async def call(client: HttpClient, method: str, session_id: str, verb: str) -> ClientResponse:
    """Call a verb on an id that is already escaped for a URL."""
    body = {"timeoutMinutes": 30} if method == "PATCH" else None
    return await client.request(method, URL(f"{SESSIONS}/{session_id}{verb}", encoded=True), json=body)


async def data_in(redis: Redis) -> dict[bytes, object]:
    """Everything that a session leaves in Redis: the hashes whole, of the rest that it is there."""
    keys = [key async for key in redis.scan_iter("session*{*")]
    return {key: await redis.hgetall(key) if key.startswith(b"session:") else None for key in keys}


def nested(depth: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    metadata: dict[str, Any] = value
    return metadata


def metadata_of(stored_bytes: int) -> dict[str, str]:
    return {"a": "x" * (stored_bytes - len(b'{"a":""}'))}


# The body as a whole


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
async def test_what_is_not_json_is_refused(client: HttpClient, body: bytes) -> None:
    fields = await fields_refused(await send(client, body))

    assert list(fields) == ["body"]


@pytest.mark.parametrize("body", [b"null", b"[]", b'"text"', b"1", b"true"])
async def test_a_body_is_an_object(client: HttpClient, body: bytes) -> None:
    fields = await fields_refused(await send(client, body))

    assert fields == {"body": "must be an object"}


async def test_missing_members_are_named(client: HttpClient) -> None:
    fields = await fields_refused(await send(client, b"{}"))

    assert fields == {"agentId": "is required", "userId": "is required"}


async def test_every_bad_member_is_named_at_once(client: HttpClient) -> None:
    timeout = {"timeoutMinutes": "5", "autoRenew": 1, "maxDurationMinutes": [], "warningThresholdMinutes": {}, "x": 1}

    fields = await error_for_reply(client, agentId=1, userId="x", metadata=[], timeoutConfig=timeout)

    assert sorted(fields) == [
        "agentId",
        "metadata",
        "timeoutConfig.autoRenew",
        "timeoutConfig.maxDurationMinutes",
        "timeoutConfig.timeoutMinutes",
        "timeoutConfig.warningThresholdMinutes",
        "timeoutConfig.x",
        "userId",
    ]


async def test_a_refusal_says_the_same_to_people(client: HttpClient) -> None:
    response = await send(client, b"{}")

    refusal = await response.json()
    assert refusal["success"] is False
    assert refusal["error"]["code"] == "VALIDATION_ERROR"
    assert refusal["error"]["details"] == "agentId: is required; userId: is required"


async def test_unknown_members_of_the_body_are_ignored(client: HttpClient) -> None:
    session_id = await open_session(client, nonsense={"deep": [1]}, agent_id=None, sessionId="mine")

    assert session_id != "mine"


async def test_a_huge_integer_in_a_member_that_is_ignored_is_ignored(client: HttpClient) -> None:
    await open_session(client, nonsense=10**30)


# Who: agentId and userId


@pytest.mark.parametrize("member", ["agentId", "userId"])
@pytest.mark.parametrize(
    "value",
    [None, 1, True, [], {}, "", "nonsense", AGENT.replace("-", ""), f"{{{AGENT}}}", f"urn:uuid:{AGENT}", AGENT + "\n"],
)
async def test_an_agent_and_a_user_are_uuids_in_their_36_characters(
    client: HttpClient, member: str, value: object
) -> None:
    fields = await error_for_reply(client, **{member: value})

    assert fields == {member: "must be a UUID in its 36 characters"}


async def test_uuids_are_kept_in_lower_case(client: HttpClient) -> None:
    response = await client.post(SESSIONS, json={"agentId": AGENT.upper(), "userId": USER.upper()})

    session = await response.json()
    assert (session["agentId"], session["userId"]) == (AGENT, USER)


# How long: timeoutConfig


@pytest.mark.parametrize("value", [None, [], "30", 30, True])
async def test_a_timeout_configuration_is_an_object(client: HttpClient, value: object) -> None:
    fields = await error_for_reply(client, timeoutConfig=value)

    assert fields == {"timeoutConfig": "must be an object"}


@pytest.mark.parametrize("member", ["timeoutMinutes", "maxDurationMinutes", "warningThresholdMinutes"])
@pytest.mark.parametrize("value", [None, "30", True, False, [], {}])
async def test_minutes_are_numbers(client: HttpClient, member: str, value: object) -> None:
    fields = await error_for_reply(client, timeoutConfig={member: value})

    assert fields == {f"timeoutConfig.{member}": "must be a number of minutes"}


@pytest.mark.parametrize("value", [None, 0, 1, "true", [], {}])
async def test_auto_renew_is_true_or_false(client: HttpClient, value: object) -> None:
    fields = await error_for_reply(client, timeoutConfig={"autoRenew": value})

    assert fields == {"timeoutConfig.autoRenew": "must be true or false"}


@pytest.mark.parametrize(
    ("member", "value", "bounds"),
    [
        ("timeoutMinutes", 4, "from 5 to 1440"),
        ("timeoutMinutes", 1441, "from 5 to 1440"),
        ("timeoutMinutes", 0, "from 5 to 1440"),
        ("timeoutMinutes", -30, "from 5 to 1440"),
        ("timeoutMinutes", 1e308, "from 5 to 1440"),
        ("timeoutMinutes", 10**30, "from 5 to 1440"),
        ("maxDurationMinutes", 4, "from 5 to 2880"),
        ("maxDurationMinutes", 2881, "from 5 to 2880"),
        ("warningThresholdMinutes", 0, "from 1 to 1440"),
        ("warningThresholdMinutes", 1441, "from 1 to 1440"),
    ],
)
async def test_minutes_out_of_bounds_are_refused_with_the_bounds(
    client: HttpClient, member: str, value: float, bounds: str
) -> None:
    fields = await error_for_reply(client, timeoutConfig={member: value})

    assert fields == {f"timeoutConfig.{member}": f"must be a whole number {bounds}"}


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("timeoutMinutes", 5),
        ("timeoutMinutes", 1440),
        ("maxDurationMinutes", 5),
        ("maxDurationMinutes", 2880),
        ("warningThresholdMinutes", 1),
        ("warningThresholdMinutes", 1440),
        ("timeoutMinutes", 30.0),
    ],
)
async def test_the_bounds_themselves_are_allowed(client: HttpClient, member: str, value: float) -> None:
    session_id = await open_session(client, timeoutConfig={member: value})

    session = await (await client.get(f"{SESSIONS}/{session_id}")).json()
    assert session["timeoutConfig"][member] == value


@pytest.mark.parametrize("member", ["timeoutMinutes", "maxDurationMinutes", "warningThresholdMinutes"])
async def test_minutes_are_whole(client: HttpClient, member: str) -> None:
    fields = await error_for_reply(client, timeoutConfig={member: 30.5})

    assert fields[f"timeoutConfig.{member}"].startswith("must be a whole number from ")


async def test_the_maximum_duration_is_not_below_the_timeout_beside_it(client: HttpClient) -> None:
    fields = await error_for_reply(client, timeoutConfig={"maxDurationMinutes": 59, "timeoutMinutes": 60})

    assert fields == {"timeoutConfig.maxDurationMinutes": "must be a whole number from 60 to 2880"}


async def test_the_maximum_duration_may_be_below_a_timeout_that_is_not_asked_for(client: HttpClient) -> None:
    session_id = await open_session(client, timeoutConfig={"maxDurationMinutes": 10})

    session = await (await client.get(f"{SESSIONS}/{session_id}")).json()
    assert session["timeRemaining"] <= 10 * MINUTE_MS


async def test_unknown_members_of_a_timeout_configuration_are_refused(client: HttpClient) -> None:
    fields = await error_for_reply(client, timeoutConfig={"timeoutminutes": 30})

    assert fields == {"timeoutConfig.timeoutminutes": "is not a member of a timeout configuration"}


async def test_a_change_of_timeout_is_judged_by_the_same_rules(client: HttpClient) -> None:
    session_id = await open_session(client)
    changes = {"timeoutMinutes": 4, "maxDurationMinutes": 12.5, "autoRenew": None, "agentId": AGENT}

    fields = await fields_refused(await client.patch(f"{SESSIONS}/{session_id}/timeout", json=changes))

    assert sorted(fields) == ["agentId", "autoRenew", "maxDurationMinutes", "timeoutMinutes"]


# SESSION_OUT_OF_RANGE=clamp


@pytest.fixture
async def clamping(redis: Redis, aiohttp_client: AiohttpClient) -> HttpClient:
    settings = Settings(session_out_of_range="clamp")
    return await aiohttp_client(ServiceServer(settings, redis))


@pytest.mark.parametrize(
    ("asked", "member", "kept"),
    [
        ({"timeoutMinutes": 1}, "timeoutMinutes", 5),
        ({"timeoutMinutes": -1e308}, "timeoutMinutes", 5),
        ({"timeoutMinutes": 1441}, "timeoutMinutes", 1440),
        ({"timeoutMinutes": 10**30}, "timeoutMinutes", 1440),
        ({"timeoutMinutes": 0.5}, "timeoutMinutes", 5),
        ({"maxDurationMinutes": 1}, "maxDurationMinutes", 5),
        ({"maxDurationMinutes": 100_000}, "maxDurationMinutes", 2880),
        ({"maxDurationMinutes": 10, "timeoutMinutes": 60}, "maxDurationMinutes", 60),
        ({"maxDurationMinutes": 10, "timeoutMinutes": 9999}, "maxDurationMinutes", 1440),
        ({"warningThresholdMinutes": 0}, "warningThresholdMinutes", 1),
        ({"warningThresholdMinutes": 9999}, "warningThresholdMinutes", 1440),
    ],
)
async def test_minutes_can_be_brought_into_bounds_instead(
    clamping: HttpClient, asked: dict[str, float], member: str, kept: int
) -> None:
    session_id = await open_session(clamping, timeoutConfig=asked)

    session = await (await clamping.get(f"{SESSIONS}/{session_id}")).json()
    assert session["timeoutConfig"][member] == kept


@pytest.mark.parametrize("value", ["1", None, True, 30.5])
async def test_what_is_no_whole_number_is_refused_all_the_same(clamping: HttpClient, value: object) -> None:
    fields = await error_for_reply(clamping, timeoutConfig={"timeoutMinutes": value})

    assert list(fields) == ["timeoutConfig.timeoutMinutes"]


# What else: metadata


@pytest.mark.parametrize("metadata", KEPT.values(), ids=KEPT)
@pytest.mark.parametrize("ascii_only", [True, False], ids=["escaped", "as it is"])
async def test_metadata_is_given_back_equal(client: HttpClient, metadata: dict[str, object], ascii_only: bool) -> None:
    body = json.dumps({"agentId": AGENT, "userId": USER, "metadata": metadata}, ensure_ascii=ascii_only)

    created = await (await send(client, body.encode())).json()

    read = await (await client.get(f"{SESSIONS}/{created['sessionId']}")).json()
    assert json.dumps(created["metadata"], sort_keys=True) == json.dumps(metadata, sort_keys=True)
    assert read["metadata"] == created["metadata"]


@pytest.mark.parametrize("value", [None, [], "text", 1, True])
async def test_metadata_is_an_object(client: HttpClient, value: object) -> None:
    fields = await error_for_reply(client, metadata=value)

    assert fields == {"metadata": "must be an object"}


@pytest.mark.parametrize("number", [18446744073709551616, -9223372036854775809, 10**30, -(10**30)])
async def test_an_integer_that_cannot_be_kept_exactly_is_refused(client: HttpClient, number: int) -> None:
    fields = await error_for_reply(client, metadata={"a": [{"b": number}]})

    assert fields["metadata"].startswith("holds an integer beyond 64 bits")


async def test_metadata_too_deep_to_be_kept_is_refused(client: HttpClient) -> None:
    fields = await error_for_reply(client, metadata=nested(300))

    assert fields == {"metadata": "is nested too deeply"}


async def test_metadata_may_be_a_hundred_levels_deep(client: HttpClient) -> None:
    session_id = await open_session(client, metadata=nested(100))

    session = await (await client.get(f"{SESSIONS}/{session_id}")).json()
    assert session["metadata"] == nested(100)


async def test_metadata_may_be_ten_kibibytes_as_stored(client: HttpClient, redis: Redis) -> None:
    session_id = await open_session(client, metadata=metadata_of(MAX_METADATA_BYTES))

    stored = await redis.hget(f"session:{{{session_id[:2]}}}:{session_id}", "metadata")
    assert stored is not None
    assert len(stored) == 10_240


async def test_metadata_of_one_byte_more_is_refused(client: HttpClient) -> None:
    fields = await error_for_reply(client, metadata=metadata_of(MAX_METADATA_BYTES + 1))

    assert fields == {"metadata": "must be at most 10240 bytes as JSON, not 10241"}


async def test_blanks_and_escapes_in_a_request_do_not_count(client: HttpClient) -> None:
    metadata = {"a": "é" * ((MAX_METADATA_BYTES - 8) // 2)}
    body = json.dumps({"agentId": AGENT, "userId": USER, "metadata": metadata}, indent=8)

    response = await send(client, body.encode())

    assert response.status == 201


# A change of metadata


async def patch_metadata(client: HttpClient, body: bytes, content_type: str = JSON["Content-Type"]) -> ClientResponse:
    session_id = await open_session(client, metadata={"channel": "web"})
    headers = {"Content-Type": content_type}
    return await client.patch(f"{SESSIONS}/{session_id}/metadata", data=body, headers=headers)


@pytest.mark.parametrize("content_type", ["application/json", "application/merge-patch+json; charset=utf-8"])
async def test_metadata_is_patched_by_either_media_type(client: HttpClient, content_type: str) -> None:
    response = await patch_metadata(client, b'{"channel":null,"topic":{"a":[1]}}', content_type)

    assert response.status == 200
    assert (await response.json())["metadata"] == {"topic": {"a": [1]}}


@pytest.mark.parametrize("content_type", ["text/plain", "application/json-patch+json"])
async def test_another_media_type_is_told_both(client: HttpClient, content_type: str) -> None:
    response = await patch_metadata(client, b"{}", content_type)

    refusal = await response.json()
    assert response.status == 415
    assert refusal["error"]["details"] == (
        f"Content-Type must be application/json or application/merge-patch+json (got {content_type})."
    )


async def test_a_merge_patch_is_no_new_session(client: HttpClient) -> None:
    response = await send(client, b"{}", **{"Content-Type": "application/merge-patch+json"})

    assert response.status == 415


@pytest.mark.parametrize("body", [b"null", b"[]", b'"text"', b"1", b"true"])
async def test_a_patch_is_an_object(client: HttpClient, body: bytes) -> None:
    fields = await fields_refused(await patch_metadata(client, body))

    assert fields == {"body": "must be an object"}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
async def test_a_patch_that_is_not_json_is_refused(client: HttpClient, body: bytes) -> None:
    fields = await fields_refused(await patch_metadata(client, body))

    assert list(fields) == ["body"]


@pytest.mark.parametrize(
    ("patch", "fault"),
    [
        ({"a": 10**30}, "holds an integer beyond 64 bits, near 1e+30"),
        ({"a": [{"b": -(2**63) - 1}]}, "holds an integer beyond 64 bits, near -9.223372036854776e+18"),
        (nested(300), "is nested too deeply"),
        (nested(900), "is nested too deeply"),
        ({"a": "x" * MAX_METADATA_BYTES}, "must be at most 10240 bytes as JSON, not 10264"),
    ],
    ids=["a huge integer", "a huge integer in a list", "depth 300", "depth 900", "too large"],
)
async def test_what_a_patch_makes_of_metadata_must_be_storable(client: HttpClient, patch: object, fault: str) -> None:
    fields = await fields_refused(await patch_metadata(client, json.dumps(patch).encode()))

    assert fields == {"metadata": fault}


# A refusal changes nothing


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"agentId": AGENT},
        {"agentId": AGENT, "userId": USER, "metadata": []},
        {"agentId": AGENT, "userId": USER, "timeoutConfig": {"timeoutMinutes": 1}},
    ],
)
async def test_a_refused_creation_leaves_nothing_behind(client: HttpClient, redis: Redis, body: object) -> None:
    response = await client.post(SESSIONS, json=body)

    assert response.status == 400
    assert await data_in(redis) == {}


@pytest.mark.parametrize("body", [b"", b"[]", b'{"timeoutMinutes":1}', b'{"timeoutMinutes":60,"x":1}'])
async def test_a_refused_change_of_timeout_changes_nothing(client: HttpClient, redis: Redis, body: bytes) -> None:
    session_id = await open_session(client)
    before = await data_in(redis)

    response = await client.patch(f"{SESSIONS}/{session_id}/timeout", data=body, headers=JSON)

    assert response.status == 400
    assert await data_in(redis) == before


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"a":99999999999999999999}', b'{"a":"%b"}' % (b"x" * MAX_METADATA_BYTES)]
)
async def test_a_refused_change_of_metadata_changes_nothing(client: HttpClient, redis: Redis, body: bytes) -> None:
    session_id = await open_session(client, metadata={"channel": "web"})
    before = await data_in(redis)

    response = await client.patch(f"{SESSIONS}/{session_id}/metadata", data=body, headers=JSON)

    assert response.status == 400
    assert await data_in(redis) == before


async def test_a_change_that_would_have_ended_the_session_changes_nothing(client: HttpClient, redis: Redis) -> None:
    session_id = await open_session(client)
    await age(redis, session_id, 20 * MINUTE_MS)
    before = await data_in(redis)

    response = await client.patch(f"{SESSIONS}/{session_id}/timeout", json={"timeoutMinutes": 10})

    assert response.status == 422
    assert await data_in(redis) == before


@pytest.mark.parametrize(("method", "verb"), VERBS)
async def test_asking_for_an_unknown_session_leaves_nothing_behind(
    client: HttpClient, redis: Redis, method: str, verb: str
) -> None:
    await call(client, method, UNKNOWN, verb)

    assert await data_in(redis) == {}


# Ids of any shape


@pytest.mark.parametrize("session_id", ID_SHAPES.values(), ids=ID_SHAPES)
@pytest.mark.parametrize(("method", "verb"), VERBS)
async def test_an_id_of_any_shape_is_just_unknown(client: HttpClient, method: str, verb: str, session_id: str) -> None:
    response = await call(client, method, session_id, verb)

    assert response.status == 404
    assert (await response.json())["code"] == "SESSION_NOT_FOUND"


@pytest.mark.parametrize("suffix", [":tombstone", "%3Atombstone", "%0a", "%00", "%20", "*", "0"])
@pytest.mark.parametrize(("method", "verb"), VERBS)
async def test_nothing_can_be_added_to_the_id_of_a_live_session(
    client: HttpClient, redis: Redis, method: str, verb: str, suffix: str
) -> None:
    session_id = await open_session(client)
    before = await data_in(redis)

    response = await call(client, method, session_id + suffix, verb)

    assert response.status == 404
    assert await data_in(redis) == before


async def test_an_id_in_upper_case_is_another_id(client: HttpClient, redis: Redis) -> None:
    session_id = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
    opened = await open_session(client)
    await redis.rename(f"session:{{{opened[:2]}}}:{opened}", f"session:{{aa}}:{session_id}")

    lower = await client.get(f"{SESSIONS}/{session_id}")
    upper = await client.get(f"{SESSIONS}/{session_id.upper()}")

    assert (lower.status, upper.status) == (200, 404)


async def test_the_id_is_replay_as_it_was_understood(client: HttpClient) -> None:
    response = await call(client, "GET", "a%00%22%3Cb%3E%C3%A9", "")

    assert (await response.json())["details"] == {"sessionId": 'a\x00"<b>é'}


@pytest.mark.parametrize("path", ["/../../livez", "/%2e%2e/%2e%2e/%2e%2e/livez", "//", "/a/b", "/a/heartbeat/", "/"])
async def test_a_path_that_is_no_id_is_no_route(client: HttpClient, path: str) -> None:
    response = await client.delete(URL(SESSIONS + path, encoded=True))

    assert response.status in (404, 405)
    assert (await response.json())["success"] is False


# What a body is sent as


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON;charset=UTF-8"]
)
async def test_json_may_come_with_a_charset(client: HttpClient, content_type: str) -> None:
    response = await send(client, b"{}", **{"Content-Type": content_type})

    assert response.status == 400


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "nonsense", ";", "json"]
)
async def test_another_content_type_is_refused(client: HttpClient, content_type: str) -> None:
    response = await send(client, b"{}", **{"Content-Type": content_type})

    refusal = await response.json()
    assert response.status == 415
    assert refusal["code"] == "UNSUPPORTED_MEDIA_TYPE"
    assert refusal["details"] == {"contentType": content_type}


async def test_a_content_type_is_required(client: HttpClient) -> None:
    response = await client.post(SESSIONS, data=b"{}", skip_auto_headers=["Content-Type"])

    assert response.status == 415


async def test_a_change_of_timeout_needs_the_content_type_too(client: HttpClient) -> None:
    response = await client.patch(f"{SESSIONS}/{UNKNOWN}/timeout", data=b"{}", headers={"Content-Type": "text/plain"})

    assert response.status == 415


async def test_verbs_without_a_body_mind_no_body(client: HttpClient) -> None:
    session_id = await open_session(client)

    response = await client.post(f"{SESSIONS}/{session_id}/heartbeat", data=b"\x00nonsense")

    assert response.status == 200


async def test_a_body_of_sixty_four_kibibytes_is_read(client: HttpClient) -> None:
    response = await send(client, b"{}".ljust(MAX_BODY_BYTES))

    assert response.status == 400


@pytest.mark.parametrize("body", [b"{}".ljust(MAX_BODY_BYTES + 1), b"{}".ljust(10 * MAX_BODY_BYTES)])
async def test_a_longer_body_is_too_large(client: HttpClient, body: bytes) -> None:
    response = await send(client, body)

    refusal = await response.json()
    assert response.status == 413
    assert refusal["code"] == "PAYLOAD_TOO_LARGE"
    assert refusal["details"] == {"maxBytes": 65_536}


@pytest.mark.parametrize(
    ("encoding", "compressed"),
    [
        ("gzip", gzip.compress(NEW)),
        ("GZip", gzip.compress(NEW)),
        ("deflate", zlib.compress(NEW)),
        ("deflate", zlib.compress(NEW, wbits=-15)),
        ("identity", NEW),
        ("", NEW),
    ],
    ids=["gzip", "in capitals", "deflate", "deflate, bare", "identity", "none"],
)
async def test_a_compressed_body_is_read(client: HttpClient, encoding: str, compressed: bytes) -> None:
    response = await send(client, compressed, **{"Content-Encoding": encoding})

    assert response.status == 201


@pytest.mark.parametrize(
    "compressed",
    [NEW, b"", gzip.compress(NEW)[:-1], gzip.compress(NEW) + b"x", gzip.compress(NEW) * 2],
    ids=["none", "empty", "cut short", "more behind it", "twice"],
)
async def test_one_that_is_not_what_it_says_is_refused(client: HttpClient, compressed: bytes) -> None:
    response = await send(client, compressed, **{"Content-Encoding": "gzip"})

    assert response.status == 400
    assert (await response.json())["code"] == "BAD_REQUEST"


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "nonsense"])
async def test_one_that_cannot_be_opened_is_refused_and_told_what_could(client: HttpClient, encoding: str) -> None:
    response = await send(client, NEW, **{"Content-Encoding": encoding})

    refusal = await response.json()
    assert (response.status, refusal["code"]) == (415, "UNSUPPORTED_ENCODING")
    assert refusal["details"] == {"contentEncoding": encoding}
    assert response.headers["Accept-Encoding"] == "gzip, deflate"


async def test_a_small_body_that_unfolds_beyond_the_limit_is_too_large(client: HttpClient) -> None:
    response = await send(client, gzip.compress(b"0" * 20_000_000), **{"Content-Encoding": "gzip"})

    assert response.status == 413


# Methods and routes


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", SESSIONS, "POST"),
        ("PATCH", SESSIONS, "GET"),
        ("OPTIONS", SESSIONS, "DELETE"),
        ("PUT", f"{SESSIONS}/{UNKNOWN}", "GET"),
        ("POST", f"{SESSIONS}/{UNKNOWN}", "DELETE"),
        ("PATCH", f"{SESSIONS}/{UNKNOWN}", "HEAD"),
        ("OPTIONS", f"{SESSIONS}/{UNKNOWN}", "GET"),
        ("GET", f"{SESSIONS}/{UNKNOWN}/heartbeat", "POST"),
        ("DELETE", f"{SESSIONS}/{UNKNOWN}/heartbeat", "POST"),
        ("GET", f"{SESSIONS}/{UNKNOWN}/renew", "POST"),
        ("PUT", f"{SESSIONS}/{UNKNOWN}/renew", "POST"),
        ("GET", f"{SESSIONS}/{UNKNOWN}/timeout", "PATCH"),
        ("POST", f"{SESSIONS}/{UNKNOWN}/timeout", "PATCH"),
        ("PUT", f"{SESSIONS}/{UNKNOWN}/metadata", "PATCH"),
        ("POST", f"{SESSIONS}/health", "GET"),
        ("POST", "/livez", "GET"),
        ("DELETE", "/readyz", "GET"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(client: HttpClient, method: str, path: str, allowed: str) -> None:
    response = await client.request(method, path)

    refusal = await response.json()
    assert response.status == 405
    assert refusal["code"] == "METHOD_NOT_ALLOWED"
    assert allowed in response.headers["Allow"].split(", ")
    assert method not in response.headers["Allow"].split(", ")
    assert refusal["details"]["allowed"] == response.headers["Allow"].split(", ")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api",
        "/api/messaging",
        "/API/messaging/sessions",
        f"{SESSIONS}/",
        f"{SESSIONS}/{UNKNOWN}/",
        f"{SESSIONS}/{UNKNOWN}/nonsense",
        f"{SESSIONS}/{UNKNOWN}/heartbeat/renew",
        f"{SESSIONS}//heartbeat",
        "/livez/",
        "/favicon.ico",
        "/%00",
        "/é",
    ],
)
async def test_there_is_nothing_at_other_paths(client: HttpClient, path: str) -> None:
    response = await client.get(path)

    assert response.status == 404
    assert (await response.json())["code"] == "NOT_FOUND"


async def test_no_refusal_is_stored_on_the_way(client: HttpClient) -> None:
    response = await client.get(f"{SESSIONS}/{UNKNOWN}")

    assert response.headers["Cache-Control"] == "no-store"


# The two shapes of a refusal


@pytest.fixture
async def flat(redis: Redis, aiohttp_client: AiohttpClient) -> HttpClient:
    settings = Settings(session_error_format="flat")
    return await aiohttp_client(ServiceServer(settings, redis))


async def expired_session(client: HttpClient, redis: Redis) -> str:
    session_id = await open_session(client)
    key = f"session:{{{session_id[:2]}}}:{session_id}"
    await redis.hset(key + ":tombstone", "expiresAt", 1705314600000)
    await redis.delete(key)
    return session_id


async def test_an_unknown_session_in_the_schemas_shape(client: HttpClient) -> None:
    response = await client.get(f"{SESSIONS}/abc-123")

    assert await response.json() == {
        "success": False,
        "error": {
            "code": "SESSION_NOT_FOUND",
            "message": "Session not found",
            "details": "There is no session with the id 'abc-123'.",
        },
        "code": "SESSION_NOT_FOUND",
        "details": {"sessionId": "abc-123"},
    }


async def test_an_expired_session_in_the_schemas_shape(client: HttpClient, redis: Redis) -> None:
    session_id = await expired_session(client, redis)

    response = await client.get(f"{SESSIONS}/{session_id}")

    assert response.status == 410
    assert await response.json() == {
        "success": False,
        "error": {
            "code": "SESSION_EXPIRED",
            "message": "Session has expired",
            "details": "The session expired at 2024-01-15T10:30:00.000Z because of inactivity.",
        },
        "code": "SESSION_EXPIRED",
        "details": {"sessionId": session_id, "expiresAt": "2024-01-15T10:30:00.000Z", "reason": "inactivity"},
    }


async def test_an_unknown_session_in_the_flat_shape(flat: HttpClient) -> None:
    response = await flat.get(f"{SESSIONS}/abc-123")

    assert response.status == 404
    assert await response.json() == {
        "error": "Session not found",
        "code": "SESSION_NOT_FOUND",
        "details": {"sessionId": "abc-123"},
    }


async def test_an_expired_session_in_the_flat_shape(flat: HttpClient, redis: Redis) -> None:
    session_id = await expired_session(flat, redis)

    response = await flat.get(f"{SESSIONS}/{session_id}")

    assert response.status == 410
    assert await response.json() == {
        "error": "Session has expired",
        "code": "SESSION_EXPIRED",
        "details": {"sessionId": session_id, "expiresAt": "2024-01-15T10:30:00.000Z", "reason": "inactivity"},
    }


@pytest.mark.parametrize("path", ["/nowhere", f"{SESSIONS}/{UNKNOWN}/renew"])
async def test_every_other_refusal_is_flat_too(flat: HttpClient, path: str) -> None:
    response = await flat.get(path)

    assert sorted(await response.json()) == ["code", "details", "error"]


# What is hardly HTTP, on a raw connection to a replica


class Answer(NamedTuple):
    status: int
    content_type: str
    body: bytes


def answer_to(replica: Replica, sent: bytes) -> Answer:
    (answer,) = answers_over_one_connection(replica, sent)
    return answer


def answers_over_one_connection(replica: Replica, *requests: bytes) -> list[Answer]:
    """Each is sent when the one before it has been answered."""
    address = urlsplit(replica.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        return [_answer_over(connection, sent) for sent in requests]


def _answer_over(connection: socket.socket, sent: bytes) -> Answer:
    connection.sendall(sent)
    with http.client.HTTPResponse(connection) as response:
        response.begin()
        return Answer(response.status, response.headers["Content-Type"], response.read())


def posting(headers: bytes, body: bytes, content_type: bytes = b"application/json") -> bytes:
    first = b"POST " + SESSIONS.encode() + b" HTTP/1.1\r\nHost: a\r\nContent-Type: " + content_type + b"\r\n"
    return first + headers + b"\r\n\r\n" + body


HARDLY_HTTP = {
    "no request line": b"nonsense\r\n\r\n",
    "bytes of no meaning": b"\x00\x01\xfe\xff\r\n\r\n",
    "the beginning of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version that has no headers": b"GET /livez HTTP/0.9\r\nHost: a\r\n\r\n",
    "a version that has other bytes": b"GET /livez HTTP/2.0\r\nHost: a\r\n\r\n",
    "an unknown version": b"GET /livez HTTP/9.9\r\nHost: a\r\n\r\n",
    "an unknown method": b"NONSENSE /livez HTTP/1.1\r\nHost: a\r\n\r\n",
    "a raw byte in the path": b"GET " + SESSIONS.encode() + b"/\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "a raw byte in the query": b"GET /livez?\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "a broken absolute URL": b"GET http://[::1/livez HTTP/1.1\r\nHost: a\r\n\r\n",
    "an impossible port": b"GET http://a:99999999/livez HTTP/1.1\r\nHost: a\r\n\r\n",
    "a NUL in a header": b"GET /livez HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
    "a header folded": b"GET /livez HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    "a negative length": posting(b"Content-Length: -1", b""),
    "a length beyond all": posting(b"Content-Length: 99999999999999999999", b"{}"),
    "two lengths": posting(b"Content-Length: 2\r\nContent-Length: 3", b"{}"),
    "a length and chunks": posting(b"Content-Length: 2\r\nTransfer-Encoding: chunked", b"{}"),
    "an unknown transfer encoding": posting(b"Transfer-Encoding: nonsense", b"{}"),
    "a bad chunk at once": posting(b"Transfer-Encoding: chunked", b"zz\r\n{}\r\n0\r\n\r\n"),
    "gzip that is none": posting(b"Content-Encoding: gzip\r\nContent-Length: 8", b"nonsense"),
    "deflate that is none": posting(b"Content-Encoding: deflate\r\nContent-Length: 8", b"nonsense"),
    "gzip cut short": posting(b"Content-Encoding: gzip\r\nContent-Length: 12", gzip.compress(b"{}")[:12]),
}


@pytest.fixture(scope="module")
def replica(redis_server: RedisServer) -> Iterator[Replica]:
    replica = Replica(REDIS_URL=redis_server.url)
    replica.start()
    yield replica
    replica.stop()


@pytest.mark.parametrize("sent", HARDLY_HTTP.values(), ids=HARDLY_HTTP)
def test_what_is_hardly_http_is_a_bad_request(replica: Replica, sent: bytes) -> None:
    status, content_type, body = answer_to(replica, sent)

    refusal = json.loads(body)
    assert status == 400
    assert content_type == "application/json"
    assert refusal["success"] is False
    assert refusal["code"] == refusal["error"]["code"]


@pytest.mark.parametrize("sent", HARDLY_HTTP.values(), ids=HARDLY_HTTP)
def test_the_service_outlives_it(replica: Replica, sent: bytes) -> None:
    answer_to(replica, sent)

    alive = answer_to(replica, b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")

    assert alive.status == 200


@pytest.mark.parametrize("sent", HARDLY_HTTP.values(), ids=HARDLY_HTTP)
def test_nothing_of_the_inside_is_shown(replica: Replica, sent: bytes) -> None:
    answer = answer_to(replica, sent)

    assert b"Traceback" not in answer.body
    assert str(Path.cwd()).encode() not in answer.body


@pytest.mark.parametrize("path", [SESSIONS, f"{SESSIONS}/{UNKNOWN}/heartbeat"], ids=["read", "minded by nobody"])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_that_cannot_be_decoded_is_one_line_of_the_log(
    start_replica: StartReplica, redis_server: RedisServer, encoding: str, path: str
) -> None:
    replica = start_replica(REDIS_URL=redis_server.url)
    headers = f"Content-Encoding: {encoding}\r\nContent-Length: 8".encode()

    answer_to(replica, posting(headers, b"nonsense").replace(SESSIONS.encode(), path.encode()))
    replica.stop()

    assert '"level":"error"' not in replica.banner
    assert replica.banner.count('"event":"request"') == 1


def test_a_body_that_nobody_reads_is_not_opened(replica: Replica) -> None:
    """It might become a thousand times as long: its connection would end here, for it is not what it says."""
    minded_by_nobody = posting(b"Content-Encoding: gzip\r\nContent-Length: 8", b"nonsense").replace(
        SESSIONS.encode(), f"{SESSIONS}/{UNKNOWN}/heartbeat".encode()
    )

    answers = answers_over_one_connection(replica, minded_by_nobody, b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")

    assert [answer.status for answer in answers] == [404, 200]


def test_a_client_that_leaves_before_its_body_is_whole_harms_nobody(replica: Replica) -> None:
    address = urlsplit(replica.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(posting(b"Expect: 100-continue\r\nContent-Length: 100", b""))
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 Continue")

    alive = answer_to(replica, b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")

    assert alive.status == 200


def test_a_client_that_leaves_before_it_is_told_to_go_on_is_no_fault(
    start_replica: StartReplica, redis_server: RedisServer
) -> None:
    replica = start_replica(REDIS_URL=redis_server.url)
    address = urlsplit(replica.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(
            b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n" + posting(b"Expect: 100-continue\r\nContent-Length: 9", b"")
        )

    answer_to(replica, b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
    replica.stop()

    assert '"level":"error"' not in replica.banner


def test_a_content_type_outside_ascii_is_refused_as_any_other(replica: Replica) -> None:
    answer = answer_to(replica, posting(b"Content-Length: 2", b"{}", content_type=b"text/\xff"))

    assert answer.status == 415
    assert json.loads(answer.body)["code"] == "UNSUPPORTED_MEDIA_TYPE"


@pytest.mark.parametrize("path", [SESSIONS, "/nowhere"])
@pytest.mark.parametrize("expectation", [b"nonsense", b"\xff", b"100-continue, \xff"])
def test_an_expectation_that_nobody_can_meet_is_refused(replica: Replica, expectation: bytes, path: str) -> None:
    sent = posting(b"Content-Length: 2\r\nExpect: " + expectation, b"{}").replace(SESSIONS.encode(), path.encode())

    answer = answer_to(replica, sent)

    assert answer.status == 417
    assert json.loads(answer.body)["code"] == "EXPECTATION_FAILED"


@pytest.mark.parametrize("target", [b"/nowhere}", SESSIONS.encode() + b"/}x", b"//[x", b"/%"])
def test_a_strange_target_is_just_nowhere(replica: Replica, target: bytes) -> None:
    answer = answer_to(replica, b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")

    assert answer.status == 404
    assert json.loads(answer.body)["success"] is False


def test_a_body_announced_too_large_is_not_waited_for(replica: Replica) -> None:
    answer = answer_to(replica, posting(b"Content-Length: 999999999", b" " * (MAX_BODY_BYTES + 1)))

    assert answer.status == 413
    assert json.loads(answer.body)["details"] == {"maxBytes": 65_536}
