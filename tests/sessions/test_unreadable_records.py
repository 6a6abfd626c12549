"""Records that a manual change has damaged: they are skipped and logged once, and DELETE removes them."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.settings import Settings
from tests.conftest import AGENT, USER, HttpClient, ServiceServer
from tests.redis_contents import KEYS
from tests.test_walkthrough import SESSIONS, open_session

POLICY = f"/api/messaging/agents/{AGENT}/timeout"
UNREADABLE = "a record in Redis is unreadable and is skipped"
Damage = Callable[[Redis, str], Awaitable[Any]]


def set_field(name: str, value: str | bytes) -> Damage:
    async def damage(redis: Redis, session_id: str) -> None:
        await redis.hset(KEYS.session(session_id), name, value)

    return damage


async def replace_by_string(redis: Redis, session_id: str) -> None:
    await redis.set(KEYS.session(session_id), "a string", px=60_000)


DAMAGES = {
    "expiry": set_field("expiresAt", "abc"),
    "infinite expiry": set_field("expiresAt", "inf"),
    "creation time": set_field("createdAt", ""),
    "minutes": set_field("timeoutMinutes", "nan"),
    "autoRenew": set_field("autoRenew", "maybe"),
    "agent": set_field("agentId", b'\xff"'),
    "revision": set_field("revision", "1_0"),
    "metadata": set_field("metadata", "{"),
    "type": replace_by_string,
}

damaged_in_each_way = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)


@pytest.fixture
async def client(aiohttp_client: AiohttpClient, real_redis: Redis) -> HttpClient:
    return await aiohttp_client(ServiceServer(Settings(), real_redis))


async def listed(client: HttpClient, **query: str) -> list[str]:
    response = await client.get(SESSIONS, params=query)
    page = await response.json()
    assert response.status == 200, page
    return [session["sessionId"] for session in page["sessions"]]


@damaged_in_each_way
@pytest.mark.parametrize(
    "query",
    [{}, {"userId": USER}, {"agentId": AGENT}, {"nearExpiration": "false"}],
    ids=["all", "user", "agent", "near"],
)
async def test_lists_contain_the_other_sessions(
    client: HttpClient, real_redis: Redis, damage: Damage, query: dict[str, str]
) -> None:
    damaged, other = await open_session(client), await open_session(client)

    await damage(real_redis, damaged)

    assert await listed(client, **query) == [other]


async def test_an_unreadable_record_is_logged_once_by_its_hash(
    client: HttpClient, real_redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = await open_session(client)
    await replace_by_string(real_redis, damaged)

    await listed(client)
    await listed(client)

    records = [record for record in caplog.records if record.getMessage() == UNREADABLE]
    assert [set(record.fields) for record in records] == [{"record"}]  # type: ignore[attr-defined]
    assert damaged not in caplog.text


CALLS: dict[str, tuple[str, str, Any]] = {
    "get": ("GET", "", None),
    "heartbeat": ("POST", "/heartbeat", None),
    "renew": ("POST", "/renew", None),
    "metadata": ("PATCH", "/metadata", {"note": "new"}),
    "send": ("POST", "/messages", {"content": "Hello"}),
    "events": ("GET", "/events", None),
}


@damaged_in_each_way
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_other_calls_do_not_find_the_session(
    client: HttpClient,
    real_redis: Redis,
    damage: Damage,
    call: tuple[str, str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    damaged = await open_session(client)
    await damage(real_redis, damaged)
    method, path, body = call

    responses = [await client.request(method, f"{SESSIONS}/{damaged}{path}", json=body) for _ in range(2)]

    assert [response.status for response in responses] == [404, 404]
    assert [record.getMessage() for record in caplog.records].count(UNREADABLE) == 1


@damaged_in_each_way
async def test_reading_messages_and_replacing_timeouts_is_possible_or_not_found(
    client: HttpClient, real_redis: Redis, damage: Damage
) -> None:
    damaged = await open_session(client)
    await damage(real_redis, damaged)

    assert (await client.get(f"{SESSIONS}/{damaged}/messages")).status in (200, 404)
    assert (await client.patch(f"{SESSIONS}/{damaged}/timeout", json={"timeoutMinutes": 60})).status in (200, 404)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_session_with_an_unreadable_tombstone_is_not_found_after_its_end(
    client: HttpClient, real_redis: Redis, call: tuple[str, str, Any]
) -> None:
    damaged = await open_session(client)
    await real_redis.delete(KEYS.session(damaged))
    await real_redis.hset(KEYS.tombstone(damaged), "expiresAt", "abc")
    method, path, body = call

    assert (await client.request(method, f"{SESSIONS}/{damaged}{path}", json=body)).status == 404


@damaged_in_each_way
async def test_deleting_a_session_removes_its_record(client: HttpClient, real_redis: Redis, damage: Damage) -> None:
    damaged = await open_session(client)
    await damage(real_redis, damaged)

    response = await client.delete(f"{SESSIONS}/{damaged}")

    assert response.status in (200, 404)
    assert [key async for key in real_redis.scan_iter(f"*{damaged}*")] == []


@damaged_in_each_way
async def test_deleting_the_sessions_of_a_user_removes_unreadable_ones(
    client: HttpClient, real_redis: Redis, damage: Damage
) -> None:
    damaged, _ = await open_session(client), await open_session(client)
    await damage(real_redis, damaged)

    response = await client.delete(SESSIONS, params={"userId": USER})

    assert (response.status, (await response.json())["revoked"]) == (200, 2)
    assert await real_redis.exists(KEYS.session(damaged), KEYS.user(USER)) == 0


@pytest.mark.parametrize("query", [{}, {"userId": USER}], ids=["all", "user"])
@pytest.mark.parametrize("limit", ["1", "1000"])
async def test_lists_skip_entries_that_are_not_text(
    client: HttpClient, real_redis: Redis, query: dict[str, str], limit: str
) -> None:
    sessions = [await open_session(client) for _ in range(2)]
    for index in (KEYS.user(USER), *(KEYS.created(session_id[:2]) for session_id in sessions)):
        await real_redis.zadd(index, {b"\xff\xfe": 1, b"\xff\xff": 2})

    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        parameters = {**query, "limit": limit, **({"cursor": cursor} if cursor else {})}
        page = await (await client.get(SESSIONS, params=parameters)).json()
        found += [session["sessionId"] for session in page["sessions"]]
        cursor = page["nextCursor"]

    assert sorted(found) == sorted(sessions)


async def test_deleting_the_sessions_of_a_user_removes_entries_that_are_not_text(
    client: HttpClient, real_redis: Redis
) -> None:
    await open_session(client)
    await real_redis.zadd(KEYS.user(USER), {b"\xff\xfe": 1})

    response = await client.delete(SESSIONS, params={"userId": USER})

    assert (response.status, (await response.json())["revoked"]) == (200, 1)
    assert await real_redis.exists(KEYS.user(USER)) == 0


@pytest.mark.parametrize("index", ["created", "expiry", "warning"])
async def test_an_index_of_a_wrong_type_hides_only_its_shard(client: HttpClient, real_redis: Redis, index: str) -> None:
    session_id = await open_session(client)
    shard = "00" if session_id[:2] != "00" else "01"
    await real_redis.set(getattr(KEYS, index)(shard), "a string")

    assert await listed(client) == [session_id]
    assert await listed(client, nearExpiration="false") == [session_id]
    assert (await client.get(f"{SESSIONS}/health")).status == 200


@pytest.mark.parametrize(("name", "value"), [("timeoutMinutes", "nan"), ("autoRenew", "maybe"), ("updatedAt", "")])
async def test_an_unreadable_policy_has_no_effect(client: HttpClient, real_redis: Redis, name: str, value: str) -> None:
    await client.put(POLICY, json={"timeoutMinutes": 60})
    await real_redis.hset(KEYS.policy(AGENT), name, value)

    assert (await client.get(POLICY)).status == 404
    assert await open_session(client)
    assert (await client.delete(POLICY)).status == 200


async def test_an_unreadable_idempotency_record_names_no_session(client: HttpClient, real_redis: Redis) -> None:
    headers, body = {"Idempotency-Key": "a-key"}, {"agentId": AGENT, "userId": USER}
    assert (await client.post(SESSIONS, json=body, headers=headers)).status == 201
    (record,) = [key async for key in real_redis.scan_iter("*:idempotency:*")]
    await real_redis.hset(record, "sessionId", b"\xff")

    assert (await client.post(SESSIONS, json=body, headers=headers)).status == 404


@damaged_in_each_way
async def test_creations_under_a_cap_ignore_unreadable_sessions(
    aiohttp_client: AiohttpClient, real_redis: Redis, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(session_max_per_user=1), real_redis))
    await damage(real_redis, await open_session(client))

    response = await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER})

    assert response.status in (201, 409)


@pytest.mark.parametrize("policy", ["deny", "evict"])
async def test_entries_that_are_not_text_do_not_count_toward_a_cap(
    aiohttp_client: AiohttpClient, real_redis: Redis, policy: Any
) -> None:
    settings = Settings(session_max_per_user=1, session_cap_policy=policy)
    client: HttpClient = await aiohttp_client(ServiceServer(settings, real_redis))
    await real_redis.zadd(KEYS.user(USER), {b"\xff\xfe": 1})
    await real_redis.expire(KEYS.user(USER), 60)

    assert await open_session(client)
    assert await real_redis.zcard(KEYS.user(USER)) == 1
