"""The health report counts sessions and caches its results."""

import asyncio
import re

import pytest
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.maintenance.health import HealthReasons, Reason
from service.sessions.keys import Keys
from service.settings import Settings
from tests.aging import age
from tests.conftest import HttpClient, ServiceServer
from tests.maintenance.health import codes_in, report_of
from tests.redis_server import RedisServer
from tests.test_walkthrough import MINUTE_MS, SESSIONS, open_session

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


async def call_count(redis: Redis, command: str) -> int:
    statistics = await redis.info("commandstats")
    count: int = statistics.get(f"cmdstat_{command}", {"calls": 0})["calls"]
    return count


async def test_an_empty_store_is_healthy(client: HttpClient) -> None:
    response = await client.get(f"{SESSIONS}/health")

    report = await response.json()
    assert response.status == 200
    assert sorted(report) == ["activeSessions", "expiringSoon", "reasons", "status", "timestamp", "uptime"]
    assert (report["status"], report["activeSessions"], report["expiringSoon"]) == ("healthy", 0, 0)
    assert report["reasons"] == []


async def test_active_sessions_are_counted(client: HttpClient) -> None:
    await open_session(client)
    await open_session(client)

    assert (await report_of(client))["activeSessions"] == 2


async def test_sessions_within_their_warning_threshold_expire_soon(client: HttpClient, redis: Redis) -> None:
    await open_session(client)
    await age(redis, await open_session(client), 26 * MINUTE_MS)

    report = await report_of(client)

    assert (report["activeSessions"], report["expiringSoon"]) == (2, 1)


async def test_each_session_has_its_own_warning_threshold(client: HttpClient, redis: Redis) -> None:
    await age(redis, await open_session(client, timeoutConfig={"warningThresholdMinutes": 20}), 11 * MINUTE_MS)
    await age(redis, await open_session(client, timeoutConfig={"warningThresholdMinutes": 1}), 28 * MINUTE_MS)

    report = await report_of(client)

    assert (report["activeSessions"], report["expiringSoon"]) == (2, 1)


async def test_expired_sessions_are_not_counted(client: HttpClient, redis: Redis) -> None:
    await open_session(client)
    await age(redis, await open_session(client), 31 * MINUTE_MS)

    report = await report_of(client)

    assert (report["activeSessions"], report["expiringSoon"]) == (1, 0)


async def test_deleted_sessions_are_not_counted(client: HttpClient) -> None:
    session_id = await open_session(client)

    await client.delete(f"{SESSIONS}/{session_id}")

    assert (await report_of(client))["activeSessions"] == 0


async def test_a_renewed_session_no_longer_expires_soon(client: HttpClient, redis: Redis) -> None:
    session_id = await open_session(client)
    await age(redis, session_id, 29 * MINUTE_MS)

    await client.post(f"{SESSIONS}/{session_id}/renew")

    report = await report_of(client)
    assert (report["activeSessions"], report["expiringSoon"]) == (1, 0)


async def test_the_timestamp_of_a_report_is_in_utc(client: HttpClient) -> None:
    report = await report_of(client)

    assert TIMESTAMP.fullmatch(report["timestamp"])


async def test_the_uptime_does_not_decrease(client: HttpClient) -> None:
    first, second = await report_of(client), await report_of(client)

    assert 0 <= first["uptime"] <= second["uptime"]


async def test_the_counts_are_null_while_redis_does_not_respond(client_of_paused_redis: HttpClient) -> None:
    response = await client_of_paused_redis.get(f"{SESSIONS}/health")

    report = await response.json()
    assert response.status == 503
    assert response.headers["Retry-After"] == "1"
    assert (report["status"], report["activeSessions"], report["expiringSoon"]) == ("unhealthy", None, None)
    assert codes_in(report) == ["STORE_UNAVAILABLE"]
    assert TIMESTAMP.fullmatch(report["timestamp"])


async def test_an_index_of_the_wrong_type_counts_as_empty(client: HttpClient, redis: Redis) -> None:
    await redis.set("sessions:{ab}:expiry", "not an index", px=MINUTE_MS)

    response = await client.get(f"{SESSIONS}/health")

    assert response.status == 200


async def test_concurrent_requests_share_one_count(
    real_redis: Redis, settings: Settings, aiohttp_client: AiohttpClient
) -> None:
    client: HttpClient = await aiohttp_client(ServiceServer(settings, real_redis))
    count_before = await call_count(real_redis, "zcount")

    await asyncio.gather(*(report_of(client) for _ in range(20)))

    assert await call_count(real_redis, "zcount") - count_before == 2 * 256


async def test_requests_within_a_second_share_one_check_for_reasons(
    fake_redis: Redis, settings: Settings, aiohttp_client: AiohttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = list[HealthReasons]()

    async def reasons(health_reasons: HealthReasons) -> list[Reason]:
        checks.append(health_reasons)
        return [Reason("CODE", "A message.")]

    monkeypatch.setattr(HealthReasons, "reasons", reasons)
    monkeypatch.setattr("service.maintenance.health._CACHE_SECONDS", 60)
    client: HttpClient = await aiohttp_client(ServiceServer(settings, fake_redis))

    reports = [await report_of(client), *await asyncio.gather(*(report_of(client) for _ in range(5)))]

    assert [codes_in(report) for report in reports] == [["CODE"]] * 6
    assert len(checks) == 1


async def test_reasons_are_cached_briefly(client: HttpClient, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.maintenance.health._CACHE_SECONDS", -1)
    await report_of(client)
    session_id = await open_session(client)
    await redis.delete(Keys("").session(session_id))

    await client.get(f"{SESSIONS}/{session_id}")

    assert codes_in(await report_of(client)) == ["SESSIONS_LOST"]


async def test_counts_are_cached_briefly(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.maintenance.health._CACHE_SECONDS", -1)
    await report_of(client)

    await open_session(client)

    assert (await report_of(client))["activeSessions"] == 1


async def test_a_failed_count_is_not_cached(client_of_paused_redis: HttpClient, paused_redis: RedisServer) -> None:
    await report_of(client_of_paused_redis)

    paused_redis.resume()

    assert (await report_of(client_of_paused_redis))["status"] == "healthy"


async def test_health_is_not_a_session_id(client: HttpClient) -> None:
    read = await client.get(f"{SESSIONS}/health")
    renewed = await client.post(f"{SESSIONS}/health/renew")

    assert read.status == 200
    assert (renewed.status, (await renewed.json())["code"]) == (404, "SESSION_NOT_FOUND")
