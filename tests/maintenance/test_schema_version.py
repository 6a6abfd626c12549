"""The service does not read or change data of an unsupported or unknown schema version."""

import asyncio

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
from tests.maintenance.health import WAIT_SECONDS, report_of, wait_for_schema_version
from tests.redis_contents import KEYS, command_counts, contents, reset_command_counts
from tests.redis_server import RedisServer
from tests.test_walkthrough import SESSIONS

NEW_SESSION = {"agentId": AGENT, "userId": USER}


class CountedTask:
    """A maintenance task that counts its runs."""

    def __init__(self) -> None:
        self.runs = 0

    async def run(self) -> None:
        self.runs += 1


@pytest.fixture
def schema_version(redis_client: RedisClient, real_redis: Redis) -> SchemaVersion:
    return SchemaVersion(redis_client, Keys(""), SecretLoader(redis_client, Keys(""), SharedSecret(), 2))


@pytest.fixture
async def client_of_stopped_redis(stopped_redis: RedisServer, aiohttp_client: AiohttpClient) -> HttpClient:
    """A service that starts before its Redis."""
    settings = Settings(session_store_timeout_seconds=10)
    client: HttpClient = await aiohttp_client(ServiceServer(settings, redis_py_client(stopped_redis.url, 10)))
    return client


async def creation_status(client: HttpClient) -> int:
    return (await client.post(SESSIONS, json=NEW_SESSION)).status


# Checks


async def test_the_supported_version_and_no_version_are_accepted(
    schema_version: SchemaVersion, real_redis: Redis
) -> None:
    await schema_version.check_supported()
    await real_redis.set(KEYS.layout, "1")

    await schema_version.check_supported()

    assert schema_version.problem is None


async def test_another_version_is_not_supported(schema_version: SchemaVersion, real_redis: Redis) -> None:
    await real_redis.set(KEYS.layout, "2")

    with pytest.raises(UnknownSchemaVersion):
        await schema_version.check_supported()

    assert schema_version.problem == "The data in Redis has schema version 2; this release supports 1."


async def test_a_version_of_the_wrong_type_is_not_supported(schema_version: SchemaVersion, real_redis: Redis) -> None:
    await real_redis.sadd(KEYS.layout, "1")

    with pytest.raises(UnknownSchemaVersion):
        await schema_version.check_supported()

    problem = "sessions:layout in Redis is not a string, so the schema version of the data is unknown."
    assert schema_version.problem == problem
    await real_redis.delete(KEYS.layout)


async def test_each_problem_is_logged_once(
    schema_version: SchemaVersion, real_redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    await real_redis.set(KEYS.layout, "2")
    await schema_version.check()
    await schema_version.check()
    await real_redis.set(KEYS.layout, "3")

    await schema_version.check()

    assert [record.getMessage() for record in caplog.records] == [
        "requests about sessions are rejected: The data in Redis has schema version 2; this release supports 1.",
        "requests about sessions are rejected: The data in Redis has schema version 3; this release supports 1.",
    ]


async def test_the_problem_ends_after_a_migration(schema_version: SchemaVersion, real_redis: Redis) -> None:
    await real_redis.set(KEYS.layout, "0")
    with pytest.raises(UnknownSchemaVersion):
        await schema_version.check_supported()
    await real_redis.set(KEYS.layout, "1")

    await schema_version.check_supported()

    assert schema_version.problem is None


async def test_concurrent_first_requests_share_one_check(
    schema_version: SchemaVersion, redis_client: RedisClient, real_redis: Redis
) -> None:
    await redis_client.query(("PING",))
    await reset_command_counts(real_redis)

    await asyncio.gather(*(schema_version.require_supported() for _ in range(20)))
    await schema_version.require_supported()

    counts = await command_counts(real_redis)
    assert (counts["get"], counts["set"]) == (3, 1)  # the version once, and the secret before and after its creation


async def test_a_read_only_check_writes_nothing(schema_version: SchemaVersion, real_redis: Redis) -> None:
    await schema_version.check_read_only()

    assert (schema_version.was_checked, await contents(real_redis)) == (True, {})


# Maintenance tasks


async def test_a_task_runs_if_a_check_fails_after_a_successful_one(
    schema_version: SchemaVersion, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reject(*_: object) -> None:
        raise StoreUnavailable("the node with the key is unavailable")

    task = CountedTask()
    await schema_version.check()
    monkeypatch.setattr(redis_client, "query", reject)

    await schema_version.if_supported(task.run)()

    assert task.runs == 1


async def test_a_task_does_not_run_before_the_first_successful_check(
    schema_version: SchemaVersion, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reject(*_: object) -> None:
        raise StoreUnavailable("the node with the key is unavailable")

    task = CountedTask()
    monkeypatch.setattr(redis_client, "query", reject)

    with pytest.raises(StoreUnavailable):
        await schema_version.if_supported(task.run)()

    assert task.runs == 0


async def test_a_task_does_not_run_if_a_check_fails_after_an_unsupported_version(
    schema_version: SchemaVersion, redis_client: RedisClient, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reject(*_: object) -> None:
        raise StoreUnavailable("the node with the key is unavailable")

    task = CountedTask()
    await real_redis.set(KEYS.layout, "2")
    await schema_version.check()
    monkeypatch.setattr(redis_client, "query", reject)

    with pytest.raises(StoreUnavailable):
        await schema_version.if_supported(task.run)()

    assert task.runs == 0


# The service


@pytest.mark.usefixtures("client")
async def test_the_service_writes_the_schema_version(redis: Redis) -> None:
    assert await wait_for_schema_version(redis) == b"1"


async def test_the_key_of_the_schema_version_has_the_prefix(fake_redis: Redis, aiohttp_client: AiohttpClient) -> None:
    settings = Settings(session_key_prefix="app:")

    await aiohttp_client(ServiceServer(settings, fake_redis))

    assert await wait_for_schema_version(fake_redis, "app:sessions:layout") == b"1"


async def test_the_service_does_not_overwrite_another_schema_version(
    redis: Redis, aiohttp_client: AiohttpClient
) -> None:
    await redis.set("sessions:layout", 2)
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis))

    await report_of(client)

    assert await redis.get("sessions:layout") == b"2"


async def test_the_service_restores_a_deleted_schema_version(
    redis: Redis, aiohttp_client: AiohttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.app.CHECK_INTERVAL_SECONDS", 0.01)
    await aiohttp_client(ServiceServer(Settings(), redis))
    await wait_for_schema_version(redis)

    await redis.delete("sessions:layout")

    assert await wait_for_schema_version(redis) == b"1"


async def test_the_first_request_is_rejected_with_another_version(redis: Redis, aiohttp_client: AiohttpClient) -> None:
    await redis.set(KEYS.layout, 2)
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis))

    assert await creation_status(client) == 503
    assert await redis.keys("session*") == [KEYS.layout.encode()]


async def test_the_first_request_succeeds_without_a_version(redis: Redis, aiohttp_client: AiohttpClient) -> None:
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis))

    assert await creation_status(client) == 201


async def test_a_version_of_the_wrong_type_is_logged_without_a_traceback(
    redis: Redis, aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.sadd(KEYS.layout, "1")
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(session_sweep_interval_seconds=0.05), redis))

    statuses = [await creation_status(client), (await client.get("/readyz")).status]
    async with asyncio.timeout(WAIT_SECONDS):
        while not all(f"{name} is delayed" in caplog.text for name in ("the sweeper", "the reconciler")):
            await client.get("/readyz")

    assert statuses == [503, 503]
    assert "Traceback" not in caplog.text
    await redis.delete(KEYS.layout)


async def test_the_health_report_contains_the_unsupported_version(redis: Redis, aiohttp_client: AiohttpClient) -> None:
    await redis.set(KEYS.layout, 2)
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis))

    response = await client.get(f"{SESSIONS}/health")

    report = await response.json()
    assert (response.status, report["status"], report["activeSessions"]) == (503, "unhealthy", None)
    assert [reason["code"] for reason in report["reasons"]] == ["LAYOUT_UNKNOWN"]
    assert report["reasons"][0]["message"].startswith(
        "The data in Redis has schema version 2; this release supports 1. "
    )


async def test_a_service_started_before_its_redis_serves_as_soon_as_redis_starts(
    client_of_stopped_redis: HttpClient, stopped_redis: RedisServer
) -> None:
    status_before = await creation_status(client_of_stopped_redis)
    stopped_redis.start()

    assert (status_before, await creation_status(client_of_stopped_redis)) == (503, 201)
