"""The liveness and the readiness probe."""

import pytest
from redis.asyncio import Redis

from service.api.app_keys import HEALTH
from tests.conftest import HttpClient
from tests.maintenance.health import wait_for_schema_version
from tests.test_walkthrough import SESSIONS

# Liveness


async def test_the_service_is_alive(client: HttpClient) -> None:
    response = await client.get("/livez")

    assert response.status == 200
    assert await response.json() == {"status": "alive"}


async def test_the_service_is_alive_while_redis_does_not_respond(client_of_paused_redis: HttpClient) -> None:
    response = await client_of_paused_redis.get("/livez")

    assert response.status == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", f"{SESSIONS}/health"])
async def test_probes_and_health_reports_are_not_cacheable(client: HttpClient, path: str) -> None:
    response = await client.get(path)

    assert response.headers["Cache-Control"] == "no-store"


# Readiness


async def test_the_service_is_ready(client: HttpClient) -> None:
    response = await client.get("/readyz")

    assert response.status == 200
    assert await response.json() == {"status": "ready"}


async def test_the_service_is_not_ready_while_redis_does_not_respond(client_of_paused_redis: HttpClient) -> None:
    response = await client_of_paused_redis.get("/readyz")

    assert response.status == 503
    assert response.headers["Retry-After"] == "1"
    assert (await response.json())["status"] == "not ready"


async def test_only_changes_of_the_readiness_are_logged(
    client: HttpClient, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    await wait_for_schema_version(redis)
    caplog.set_level("INFO")
    for version in (1, 2, 2, 2, 1, 1):
        await redis.set("sessions:layout", version)
        await client.get("/readyz")

    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [line for line in lines if "ready" in line[1] or line[1] == "request"] == [
        ("WARNING", "not ready: The data in Redis has schema version 2; this release supports 1."),
        ("INFO", "ready again"),
    ]


async def test_the_service_is_not_ready_while_it_stops(client: HttpClient) -> None:
    assert client.app is not None
    client.app[HEALTH].is_draining = True

    response = await client.get("/readyz")

    assert response.status == 503
    assert await response.json() == {"status": "not ready", "reason": "The service is stopping."}


async def test_the_service_is_not_ready_with_another_schema_version(client: HttpClient, redis: Redis) -> None:
    await redis.set("sessions:layout", 2)

    response = await client.get("/readyz")

    assert response.status == 503
    assert (await response.json())["reason"] == "The data in Redis has schema version 2; this release supports 1."


@pytest.mark.parametrize("version", ["nonsense", "", "1.5"])
async def test_the_service_is_not_ready_with_an_invalid_schema_version(
    client: HttpClient, redis: Redis, version: str
) -> None:
    await redis.set("sessions:layout", version)

    response = await client.get("/readyz")

    assert response.status == 503


async def test_a_readiness_probe_writes_nothing(client: HttpClient, redis: Redis) -> None:
    await wait_for_schema_version(redis)
    await redis.delete("sessions:layout", "sessions:secret")

    response = await client.get("/readyz")

    assert response.status == 200
    assert set(await redis.keys()) <= {b"sessions:secret"}  # a maintenance task may have created it
