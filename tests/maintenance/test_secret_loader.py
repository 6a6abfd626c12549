"""The replicas create and load one shared secret, and requests do not wait for it."""

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
NO_TTL = -1
WAIT_SECONDS = 30


@pytest.fixture
def secret() -> SharedSecret:
    return SharedSecret()


@pytest.fixture
def loader(redis_client: RedisClient, secret: SharedSecret, real_redis: Redis) -> SecretLoader:
    return SecretLoader(redis_client, KEYS, secret, WAIT_SECONDS)


@pytest.fixture
async def full_redis(real_redis: Redis) -> AsyncIterator[Redis]:
    """A server without free memory."""
    await real_redis.config_set("maxmemory", 1)
    yield real_redis
    await real_redis.config_set("maxmemory", 0)


async def stored_secret(redis: Redis) -> str:
    found = await redis.get(KEYS.secret)
    assert isinstance(found, bytes)
    return found.decode()


async def test_the_first_load_creates_the_secret(loader: SecretLoader, secret: SharedSecret, real_redis: Redis) -> None:
    await loader.load()

    assert re.fullmatch("[0-9a-f]{64}", await stored_secret(real_redis))
    assert await real_redis.ttl(KEYS.secret) == NO_TTL
    assert secret.hash_id(AN_ID) == await hashed_in(real_redis, AN_ID)


async def test_twenty_concurrent_loads_return_the_same_secret(redis_client: RedisClient, real_redis: Redis) -> None:
    secrets = [SharedSecret() for _ in range(20)]

    await asyncio.gather(*(SecretLoader(redis_client, KEYS, secret, WAIT_SECONDS).load() for secret in secrets))

    assert {secret.hash_id(AN_ID) for secret in secrets} == {await hashed_in(real_redis, AN_ID)}


async def test_an_existing_secret_is_not_changed(loader: SecretLoader, secret: SharedSecret, real_redis: Redis) -> None:
    await real_redis.set(KEYS.secret, "0f" * 32)

    await loader.load()

    assert (secret.is_loaded, await stored_secret(real_redis)) == (True, "0f" * 32)


async def test_a_new_secret_is_loaded_after_redis_was_emptied(
    loader: SecretLoader, secret: SharedSecret, real_redis: Redis
) -> None:
    await loader.load()
    hash_before = secret.hash_id(AN_ID)
    await real_redis.delete(KEYS.secret)

    await loader.load()

    assert hash_before != secret.hash_id(AN_ID) == await hashed_in(real_redis, AN_ID)


async def test_a_read_only_load_does_not_create_the_secret(
    loader: SecretLoader, secret: SharedSecret, real_redis: Redis
) -> None:
    await loader.load_existing()

    assert (secret.is_loaded, await contents(real_redis)) == (False, {})


@pytest.mark.parametrize("found", ["not a secret", "0F" * 32, b"\xff" * 64])
async def test_an_invalid_secret_is_logged_once_without_its_value(
    loader: SecretLoader, secret: SharedSecret, real_redis: Redis, found: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await real_redis.set(KEYS.secret, found)

    await loader.load()
    await loader.load()

    assert not secret.is_loaded
    assert [record.getMessage() for record in caplog.records] == [
        "the log contains no ids: sessions:secret cannot be loaded: must be 64 hex digits"
    ]


async def test_a_key_of_the_wrong_type_is_not_loaded(
    loader: SecretLoader, secret: SharedSecret, real_redis: Redis
) -> None:
    await real_redis.sadd(KEYS.secret, "1")

    await loader.load()

    assert not secret.is_loaded
    await real_redis.delete(KEYS.secret)


async def test_a_load_ends_after_its_timeout(
    redis_client: RedisClient, secret: SharedSecret, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def wait_forever(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(redis_client, "query", wait_forever)

    await SecretLoader(redis_client, KEYS, secret, wait_seconds=0.02).load()

    assert "did not respond in time" in caplog.text


async def test_the_loaded_secret_remains_while_redis_is_unavailable(
    loader: SecretLoader, secret: SharedSecret, redis_client: RedisClient, caplog: pytest.LogCaptureFixture
) -> None:
    await loader.load()
    hash_before = secret.hash_id(AN_ID)
    await redis_client.aclose()

    await loader.load()

    assert secret.hash_id(AN_ID) == hash_before
    assert "the log contains no ids" not in caplog.text


# The service


async def test_the_secret_is_loaded_before_the_first_response(
    redis: Redis, aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis))

    session_id = await open_session(client)

    (created,) = [event for event in logged_events(caplog) if event["event"] == "session created"]
    assert created["session"] == await hashed_in(redis, session_id)


@pytest.mark.parametrize("kind", ["server"])
async def test_without_memory_for_the_secret_requests_succeed_and_no_id_is_logged(
    full_redis: Redis, kind: Kind, aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), full_redis))

    statuses = [(await client.get(path)).status for path in ("/readyz", f"{SESSIONS}/{AN_ID}")]

    (read,) = [event for event in logged_events(caplog) if event.get("status") == 404]
    assert (statuses, read["session"]) == ([200, 404], HIDDEN)


async def test_the_secret_is_not_created_with_another_schema_version(
    redis: Redis, aiohttp_client: AiohttpClient
) -> None:
    await redis.set(KEYS.layout, 2)
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis))

    response = await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER})

    assert (response.status, await redis.exists(KEYS.secret)) == (503, 0)
