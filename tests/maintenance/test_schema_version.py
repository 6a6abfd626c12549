"""Data of a layout that this version does not know, or could not ask for yet: nothing reads or changes it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.errors import StoreUnavailable
from service.maintenance.schema_version import SchemaVersion, UnknownSchemaVersion
from service.maintenance.secret_loader import SecretLoader
from service.redis_client.client import RedisClient
from service.redis_client.factory import redis_py_client
from service.sessions.keys import Keys
from service.settings import Settings
from service.shared_secret import SharedSecret
from tests.conftest import AGENT, USER, HttpClient, ServiceServer
from tests.redis_contents import KEYS, command_counts, contents, reset_command_counts
from tests.redis_server import RedisServer
from tests.test_walkthrough import SESSIONS

OPENING = {"agentId": AGENT, "userId": USER}


class Rounds:
    """Work beside the requests that counts how often it was done."""

    def __init__(self) -> None:
        self.done = 0

    async def round(self) -> None:
        self.done += 1


@pytest.fixture
def layout(redis_client: RedisClient, real_redis: Redis) -> SchemaVersion:
    return SchemaVersion(redis_client, Keys(""), SecretLoader(redis_client, Keys(""), SharedSecret(), 2))


@pytest.fixture
def unborn_server(data_dir: Path) -> Iterator[RedisServer]:
    """A server that is not started yet."""
    server = RedisServer(data_dir)
    yield server
    server.stop()


@pytest.fixture
async def ahead_of_redis(unborn_server: RedisServer, aiohttp_client: AiohttpClient) -> HttpClient:
    """A service that was started before its Redis."""
    settings = Settings(session_store_timeout_seconds=0.5)
    client: HttpClient = await aiohttp_client(ServiceServer(settings, redis_py_client(unborn_server.url, 0.5)))
    return client


async def opened(client: HttpClient) -> int:
    return (await client.post(SESSIONS, json=OPENING)).status


# What a look finds


async def test_data_of_this_layout_and_no_data_are_known(layout: SchemaVersion, real_redis: Redis) -> None:
    await layout.check_supported()
    await real_redis.set(KEYS.layout, "1")

    await layout.check_supported()

    assert layout.problem is None


async def test_data_of_another_layout_is_not(layout: SchemaVersion, real_redis: Redis) -> None:
    await real_redis.set(KEYS.layout, "2")

    with pytest.raises(UnknownSchemaVersion):
        await layout.check_supported()

    assert layout.problem == "The data in Redis has schema version 2; this release supports 1."


async def test_data_whose_mark_is_no_string_is_not(layout: SchemaVersion, real_redis: Redis) -> None:
    await real_redis.sadd(KEYS.layout, "1")

    with pytest.raises(UnknownSchemaVersion):
        await layout.check_supported()

    assert layout.problem == "sessions:layout in Redis is not a string, so the schema version of the data is unknown."
    await real_redis.delete(KEYS.layout)


async def test_it_is_told_once_what_is_wrong(
    layout: SchemaVersion, real_redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    await real_redis.set(KEYS.layout, "2")
    await layout.check()
    await layout.check()
    await real_redis.set(KEYS.layout, "3")

    await layout.check()

    assert [record.getMessage() for record in caplog.records] == [
        "requests about sessions are rejected: The data in Redis has schema version 2; this release supports 1.",
        "requests about sessions are rejected: The data in Redis has schema version 3; this release supports 1.",
    ]


async def test_trouble_is_over_when_the_data_has_been_moved(layout: SchemaVersion, real_redis: Redis) -> None:
    await real_redis.set(KEYS.layout, "0")
    with pytest.raises(UnknownSchemaVersion):
        await layout.check_supported()
    await real_redis.set(KEYS.layout, "1")

    await layout.check_supported()

    assert layout.problem is None


async def test_those_who_come_before_the_first_look_share_one(
    layout: SchemaVersion, redis_client: RedisClient, real_redis: Redis
) -> None:
    await redis_client.query(("PING",))
    await reset_command_counts(real_redis)

    await asyncio.gather(*(layout.require_supported() for _ in range(20)))
    await layout.require_supported()

    seen = await command_counts(real_redis)
    assert (seen["get"], seen["set"]) == (3, 1)  # of the layout once, and of the secret that was not there


async def test_who_only_looks_writes_nothing(layout: SchemaVersion, real_redis: Redis) -> None:
    await layout.check_read_only()

    assert (layout.was_checked, await contents(real_redis)) == (True, {})


# Work beside the requests


async def test_rounds_go_on_where_a_look_fails_after_one_succeeded(
    layout: SchemaVersion, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object) -> None:
        raise StoreUnavailable("the server with the mark is away")

    work = Rounds()
    await layout.check()
    monkeypatch.setattr(redis_client, "query", refused)

    await layout.if_supported(work.round)()

    assert work.done == 1


async def test_rounds_wait_for_the_first_look_to_succeed(
    layout: SchemaVersion, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object) -> None:
        raise StoreUnavailable("the server with the mark is away")

    work = Rounds()
    monkeypatch.setattr(redis_client, "query", refused)

    with pytest.raises(StoreUnavailable):
        await layout.if_supported(work.round)()

    assert work.done == 0


async def test_rounds_wait_where_a_look_fails_after_one_found_trouble(
    layout: SchemaVersion, redis_client: RedisClient, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object) -> None:
        raise StoreUnavailable("the server with the mark is away")

    work = Rounds()
    await real_redis.set(KEYS.layout, "2")
    await layout.check()
    monkeypatch.setattr(redis_client, "query", refused)

    with pytest.raises(StoreUnavailable):
        await layout.if_supported(work.round)()

    assert work.done == 0


# The service


async def test_the_very_first_request_is_refused_over_data_of_another_layout(
    redis: Redis, aiohttp_client: AiohttpClient
) -> None:
    await redis.set(KEYS.layout, 2)
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis))

    assert await opened(client) == 503
    assert await redis.keys("session*") == [KEYS.layout.encode()]


async def test_the_very_first_request_is_served_over_data_of_this_one(
    redis: Redis, aiohttp_client: AiohttpClient
) -> None:
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis))

    assert await opened(client) == 201


async def test_a_mark_that_is_no_string_is_told_without_a_traceback(
    redis: Redis, aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.sadd(KEYS.layout, "1")
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(session_sweep_interval_seconds=0.05), redis))

    statuses = [await opened(client), (await client.get("/readyz")).status]
    async with asyncio.timeout(10):
        while not all(f"{round_} is delayed" in caplog.text for round_ in ("the sweeper", "the reconciler")):
            await client.get("/readyz")

    assert statuses == [503, 503]
    assert "Traceback" not in caplog.text
    await redis.delete(KEYS.layout)


async def test_health_says_that_the_layout_is_unknown(redis: Redis, aiohttp_client: AiohttpClient) -> None:
    await redis.set(KEYS.layout, 2)
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis))

    response = await client.get(f"{SESSIONS}/health")

    report = await response.json()
    assert (response.status, report["status"], report["activeSessions"]) == (503, "unhealthy", None)
    assert [reason["code"] for reason in report["reasons"]] == ["LAYOUT_UNKNOWN"]
    assert report["reasons"][0]["message"].startswith(
        "The data in Redis has schema version 2; this release supports 1. "
    )


async def test_a_service_started_before_its_redis_serves_as_soon_as_that_is_there(
    ahead_of_redis: HttpClient, unborn_server: RedisServer
) -> None:
    before = await opened(ahead_of_redis)
    unborn_server.start()

    assert (before, await opened(ahead_of_redis)) == (503, 201)
