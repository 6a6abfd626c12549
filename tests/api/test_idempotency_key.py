"""Idempotency-Key: a creation that is repeated is answered with the session that it made, and makes no other."""

import asyncio
from collections import Counter

import pytest
from aiohttp import ClientResponse
from multidict import CIMultiDict
from redis.asyncio import Redis

from service.api.request_headers import idempotency_key_of
from service.errors import InvalidRequest
from tests.aging import age
from tests.bad_input.helpers import invalid_fields
from tests.conftest import AGENT, USER, HttpClient, StartReplica
from tests.redis_server import RedisServer
from tests.test_walkthrough import MINUTE_MS, SESSIONS

KEY = "8e03978e-40d5-43e8-bc93-6894a57f9324"


class Asking(dict[object, object]):
    """A request with these lines of Idempotency-Key, of which nobody knows whose it is."""

    def __init__(self, *lines: str) -> None:
        super().__init__()
        self.headers = CIMultiDict([("Idempotency-Key", line) for line in lines])


def read(*lines: str) -> str | None:
    key = idempotency_key_of(Asking(*lines))  # type: ignore[arg-type]
    return key and key.key


async def create(client: HttpClient, key: str = KEY, **members: object) -> ClientResponse:
    body = {"agentId": AGENT, "userId": USER, **members}
    return await client.post(SESSIONS, json=body, headers={"Idempotency-Key": key})


async def test_the_first_answer_is_that_of_any_creation(client: HttpClient) -> None:
    first = await create(client)

    session = await first.json()
    assert first.status == 201
    assert first.headers["Location"] == f"{SESSIONS}/{session['sessionId']}"
    assert "Idempotency-Replayed" not in first.headers


async def test_the_next_one_has_the_same_session_and_says_so(client: HttpClient) -> None:
    first = await create(client, metadata={"a": 1, "b": 2})

    second = await create(client, metadata={"b": 2, "a": 1})

    assert second.status == 201
    assert (await second.json())["sessionId"] == (await first.json())["sessionId"]
    assert second.headers["Location"] == first.headers["Location"]
    assert second.headers["Idempotency-Replayed"] == "true"


async def test_it_is_the_session_as_it_is_now(client: HttpClient, redis: Redis) -> None:
    session_id = (await (await create(client)).json())["sessionId"]
    await age(redis, session_id, 10 * MINUTE_MS)
    await client.patch(f"{SESSIONS}/{session_id}/metadata", json={"channel": "phone"})

    second = await create(client)

    session = await second.json()
    assert second.headers["ETag"] == '"2"'
    assert session["metadata"] == {"channel": "phone"}
    assert session["timeRemaining"] <= 20 * MINUTE_MS


async def test_another_body_is_refused(client: HttpClient) -> None:
    await create(client)

    second = await create(client, metadata={"channel": "phone"})

    assert second.status == 422
    assert (await second.json())["code"] == "IDEMPOTENCY_KEY_REUSED"


async def test_a_key_is_the_same_in_quotes_and_without(client: HttpClient) -> None:
    first = await create(client, f'"{KEY}"')

    second = await create(client, KEY)

    assert (await second.json())["sessionId"] == (await first.json())["sessionId"]


async def test_one_that_has_expired_is_gone_here_too(client: HttpClient, redis: Redis) -> None:
    session_id = (await (await create(client)).json())["sessionId"]
    await age(redis, session_id, 30 * MINUTE_MS)

    second = await create(client)

    refusal = await second.json()
    assert (second.status, refusal["code"]) == (410, "SESSION_EXPIRED")
    assert refusal["details"]["sessionId"] == session_id


async def test_one_that_was_deleted_is_unknown_here_too(client: HttpClient) -> None:
    session_id = (await (await create(client)).json())["sessionId"]
    await client.delete(f"{SESSIONS}/{session_id}")

    second = await create(client)

    assert (second.status, (await second.json())["code"]) == (404, "SESSION_NOT_FOUND")


async def test_what_was_refused_leaves_its_key_free(client: HttpClient) -> None:
    await invalid_fields(await create(client, metadata=[]))

    second = await create(client)

    assert (second.status, "Idempotency-Replayed" in second.headers) == (201, False)


async def test_another_call_takes_no_notice_of_it(client: HttpClient) -> None:
    session_id = (await (await create(client)).json())["sessionId"]
    headers = {"Idempotency-Key": KEY}

    answers = [await client.post(f"{SESSIONS}/{session_id}/renew", headers=headers) for _ in range(2)]

    assert [(await answer.json())["renewalCount"] for answer in answers] == [1, 2]


@pytest.mark.parametrize("key", ["", "a b", "a,b", '"', '""', '"a', 'a"', "a" * 256, f'"{"a" * 256}"', '"a";b=1'])
async def test_what_is_no_key_is_named(client: HttpClient, key: str) -> None:
    assert list(await invalid_fields(await create(client, key))) == ["Idempotency-Key"]


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("a", "a"),
        ('"a"', "a"),
        ("a" * 255, "a" * 255),
        (f'"{"a" * 255}"', "a" * 255),
        ("!#$%&'()*+-./:;<=>?@[\\]^_`{|}~", "!#$%&'()*+-./:;<=>?@[\\]^_`{|}~"),
        (r'"a\"b\\c,d"', r'a"b\c,d'),
    ],
)
def test_a_key_may_hold_all_that_can_be_seen(line: str, key: str) -> None:
    assert read(line) == key


def test_without_one_there_is_none() -> None:
    assert read() is None


@pytest.mark.parametrize(
    "lines", [("a", "b"), ("a", "a"), ("\x7f",), ("a\n",), ("\N{LATIN SMALL LETTER E WITH ACUTE}",), (r'"a\b"',)]
)
def test_nothing_else_is_a_key(lines: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest):
        read(*lines)


async def test_a_hundred_at_once_over_three_replicas_are_one(
    redis_server: RedisServer, start_replica: StartReplica, real_redis: Redis
) -> None:
    replicas = [start_replica(REDIS_URL=redis_server.url) for _ in range(3)]
    body = {"agentId": AGENT, "userId": USER}

    answers = await asyncio.gather(
        *(
            asyncio.to_thread(replicas[number % 3].call, "POST", SESSIONS, body, {"Idempotency-Key": KEY})
            for number in range(100)
        )
    )

    assert Counter(status for status, _ in answers) == {201: 100}
    (session_id,) = {session["sessionId"] for _, session in answers}
    assert len(await real_redis.keys("session:{??}:????????-????-4???-????-????????????")) == 1
    assert await real_redis.zrange(f"sessions:user:{{{USER}}}", 0, -1) == [session_id.encode()]
    assert await real_redis.zrange(f"sessions:agent:{{{AGENT}}}", 0, -1) == [session_id.encode()]


async def test_a_key_is_in_no_line_of_the_log(
    redis_server: RedisServer, start_replica: StartReplica, real_redis: Redis
) -> None:
    replica = start_replica(REDIS_URL=redis_server.url, SESSION_LOG_LEVEL="debug")
    body = {"agentId": AGENT, "userId": USER}

    for_the_log = [
        await asyncio.to_thread(replica.call, "POST", SESSIONS, asked, {"Idempotency-Key": KEY})
        for asked in (body, body, {**body, "metadata": {"a": 1}}, {})
    ]
    replica.stop()

    assert [status for status, _ in for_the_log] == [201, 201, 422, 400]
    assert "session creation replayed" in replica.banner
    assert KEY not in replica.banner
