"""The secret that replicas share: made once, learnt by all, and held up for by nobody."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator

import pytest
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.maintenance.secret_loader import SecretLoader
from service.redis_client.client import RedisClient
from service.settings import Settings
from service.settings.redis_url import Kind
from service.shared_secret import HIDDEN, SharedSecret
from tests.conftest import AGENT, USER, HttpClient, ServiceServer
from tests.hashes import hashed_in
from tests.log_events import logged_events
from tests.redis_contents import KEYS, contents
from tests.test_walkthrough import SESSIONS, open_session

AN_ID = "4716d2ea-673d-47d0-b1bd-33202db7411b"
NEVER = -1
PATIENCE_SECONDS = 5


@pytest.fixture
def secret() -> SharedSecret:
    return SharedSecret()


@pytest.fixture
def shared(redis_client: RedisClient, secret: SharedSecret, real_redis: Redis) -> SecretLoader:
    return SecretLoader(redis_client, KEYS, secret, PATIENCE_SECONDS)


@pytest.fixture
async def full_redis(real_redis: Redis) -> AsyncIterator[Redis]:
    """A server that takes nothing more."""
    await real_redis.config_set("maxmemory", 1)
    yield real_redis
    await real_redis.config_set("maxmemory", 0)


async def made(redis: Redis) -> str:
    found = await redis.get(KEYS.secret)
    assert isinstance(found, bytes)
    return found.decode()


async def test_whoever_comes_first_makes_it(shared: SecretLoader, secret: SharedSecret, real_redis: Redis) -> None:
    await shared.load()

    assert re.fullmatch("[0-9a-f]{64}", await made(real_redis))
    assert await real_redis.ttl(KEYS.secret) == NEVER
    assert secret.hash_id(AN_ID) == await hashed_in(real_redis, AN_ID)


async def test_of_twenty_that_come_at_once_all_have_the_same(redis_client: RedisClient, real_redis: Redis) -> None:
    secrets = [SharedSecret() for _ in range(20)]

    await asyncio.gather(*(SecretLoader(redis_client, KEYS, secret, PATIENCE_SECONDS).load() for secret in secrets))

    assert {secret.hash_id(AN_ID) for secret in secrets} == {await hashed_in(real_redis, AN_ID)}


async def test_one_that_is_there_is_left_as_it_is(
    shared: SecretLoader, secret: SharedSecret, real_redis: Redis
) -> None:
    await real_redis.set(KEYS.secret, "0f" * 32)

    await shared.load()

    assert (secret.is_loaded, await made(real_redis)) == (True, "0f" * 32)


async def test_once_redis_was_emptied_another_is_learnt(
    shared: SecretLoader, secret: SharedSecret, real_redis: Redis
) -> None:
    await shared.load()
    before = secret.hash_id(AN_ID)
    await real_redis.delete(KEYS.secret)

    await shared.load()

    assert before != secret.hash_id(AN_ID) == await hashed_in(real_redis, AN_ID)


async def test_who_may_change_nothing_does_not_make_it(
    shared: SecretLoader, secret: SharedSecret, real_redis: Redis
) -> None:
    await shared.load_existing()

    assert (secret.is_loaded, await contents(real_redis)) == (False, {})


@pytest.mark.parametrize("found", ["not a secret", "0F" * 32, b"\xff" * 64])
async def test_what_is_no_secret_is_told_once_and_not_repeated(
    shared: SecretLoader, secret: SharedSecret, real_redis: Redis, found: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await real_redis.set(KEYS.secret, found)

    await shared.load()
    await shared.load()

    assert not secret.is_loaded
    assert [record.getMessage() for record in caplog.records] == [
        "the log contains no ids: sessions:secret cannot be loaded: must be 64 hex digits"
    ]


async def test_nor_is_a_key_of_another_kind(shared: SecretLoader, secret: SharedSecret, real_redis: Redis) -> None:
    await real_redis.sadd(KEYS.secret, "1")

    await shared.load()

    assert not secret.is_loaded
    await real_redis.delete(KEYS.secret)


async def test_one_that_does_not_come_is_not_waited_for(
    redis_client: RedisClient, secret: SharedSecret, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(redis_client, "query", never)

    await SecretLoader(redis_client, KEYS, secret, wait_seconds=0.02).load()

    assert "did not respond in time" in caplog.text


async def test_one_that_was_known_stays_in_force_without_redis(
    shared: SecretLoader, secret: SharedSecret, redis_client: RedisClient, caplog: pytest.LogCaptureFixture
) -> None:
    await shared.load()
    before = secret.hash_id(AN_ID)
    await redis_client.aclose()

    await shared.load()

    assert secret.hash_id(AN_ID) == before
    assert "the log contains no ids" not in caplog.text


# The service


async def test_it_is_there_when_the_first_request_is_answered(
    redis: Redis, aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis))

    session_id = await open_session(client)

    (created,) = [event for event in logged_events(caplog) if event["event"] == "session created"]
    assert created["session"] == await hashed_in(redis, session_id)


@pytest.mark.parametrize("kind", ["server"])
async def test_without_room_for_it_sessions_are_served_and_no_id_is_told(
    full_redis: Redis, kind: Kind, aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), full_redis))

    statuses = [(await client.get(path)).status for path in ("/readyz", f"{SESSIONS}/{AN_ID}")]

    (read,) = [event for event in logged_events(caplog) if event.get("status") == 404]
    assert (statuses, read["session"]) == ([200, 404], HIDDEN)


async def test_over_data_of_another_layout_it_is_not_made(redis: Redis, aiohttp_client: AiohttpClient) -> None:
    await redis.set(KEYS.layout, 2)
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis))

    response = await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER})

    assert (response.status, await redis.exists(KEYS.secret)) == (503, 0)
