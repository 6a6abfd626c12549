"""What orchestrators and operators are told: alive, ready, how many sessions there are, and what is not well."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.api.app_keys import HEALTH
from service.maintenance.health import HealthReasons, Reason
from service.maintenance.sweeper import Sweeper
from service.observability.metrics import Metrics
from service.redis_client.errors import CommandRejected, UnderReplicated
from service.redis_client.factory import redis_py_client
from service.redis_client.monitor import Incident
from service.sessions.events import SessionEvents
from service.sessions.keys import Keys
from service.settings import Settings
from tests.aging import age
from tests.conftest import HttpClient, ServiceServer, new_session_events, redis_client_for
from tests.redis_server import RedisServer
from tests.test_walkthrough import MINUTE_MS, SESSIONS, open_session

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
SOON = 10
"""Seconds."""


@pytest.fixture
def paused_redis(data_dir: Path) -> Iterator[RedisServer]:
    """A server that takes connections and does not answer."""
    server = RedisServer(data_dir)
    server.start()
    server.pause()
    yield server
    server.stop()


@pytest.fixture
async def cut_off(paused_redis: RedisServer, aiohttp_client: AiohttpClient) -> HttpClient:
    settings = Settings(session_store_timeout_seconds=0.2)
    return await aiohttp_client(ServiceServer(settings, redis_py_client(paused_redis.url, 0.2)))


@pytest.fixture
def evicting(data_dir: Path) -> Iterator[RedisServer]:
    """A server that drops keys when its memory is full."""
    server = RedisServer(data_dir, settings={"maxmemory": "100mb", "maxmemory-policy": "volatile-lru"})
    server.start()
    yield server
    server.stop()


@pytest.fixture
def events() -> SessionEvents:
    return new_session_events(Metrics())


@pytest.fixture
async def sweeper(real_redis: Redis, events: SessionEvents) -> Sweeper:
    metrics = Metrics()
    return Sweeper(redis_client_for(real_redis), Keys(""), events, metrics, retention_ms=1)


def codes_in(report: dict[str, Any]) -> list[str]:
    return [reason["code"] for reason in report["reasons"]]


async def report_of(client: HttpClient) -> dict[str, Any]:
    report: dict[str, Any] = await (await client.get(f"{SESSIONS}/health")).json()
    return report


async def layout_in(redis: Redis, key: str = "sessions:layout") -> object:
    """The version of the layout, as soon as it is there."""
    async with asyncio.timeout(SOON):
        while (version := await redis.get(key)) is None:
            continue
    return version


async def calls(redis: Redis, command: str) -> int:
    """How often Redis was asked a command."""
    statistics = await redis.info("commandstats")
    number: int = statistics.get(f"cmdstat_{command}", {"calls": 0})["calls"]
    return number


# Alive


async def test_it_is_alive(client: HttpClient) -> None:
    response = await client.get("/livez")

    assert response.status == 200
    assert await response.json() == {"status": "alive"}


async def test_it_is_alive_whatever_redis_does(cut_off: HttpClient) -> None:
    response = await cut_off.get("/livez")

    assert response.status == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", f"{SESSIONS}/health"])
async def test_no_such_answer_is_kept_on_the_way(client: HttpClient, path: str) -> None:
    response = await client.get(path)

    assert response.headers["Cache-Control"] == "no-store"


# Ready


async def test_it_is_ready(client: HttpClient) -> None:
    response = await client.get("/readyz")

    assert response.status == 200
    assert await response.json() == {"status": "ready"}


async def test_it_is_not_ready_without_redis(cut_off: HttpClient) -> None:
    response = await cut_off.get("/readyz")

    assert response.status == 503
    assert response.headers["Retry-After"] == "1"
    assert (await response.json())["status"] == "not ready"


async def test_it_is_not_ready_while_it_stops(client: HttpClient) -> None:
    assert client.app is not None
    client.app[HEALTH].is_draining = True

    response = await client.get("/readyz")

    assert response.status == 503
    assert await response.json() == {"status": "not ready", "reason": "The service is stopping."}


async def test_it_is_not_ready_for_data_of_another_layout(client: HttpClient, redis: Redis) -> None:
    await redis.set("sessions:layout", 2)

    response = await client.get("/readyz")

    assert response.status == 503
    assert (await response.json())["reason"] == "The data in Redis has schema version 2; this release supports 1."


@pytest.mark.parametrize("layout", ["nonsense", "", "1.5"])
async def test_it_is_not_ready_for_data_of_a_layout_that_makes_no_sense(
    client: HttpClient, redis: Redis, layout: str
) -> None:
    await redis.set("sessions:layout", layout)

    response = await client.get("/readyz")

    assert response.status == 503


async def test_asking_whether_it_is_ready_writes_nothing(client: HttpClient, redis: Redis) -> None:
    await layout_in(redis)
    await redis.delete("sessions:layout", "sessions:secret")

    response = await client.get("/readyz")

    assert response.status == 200
    assert set(await redis.keys()) <= {b"sessions:secret"}  # which the rounds beside may be making


# The layout of the data


@pytest.mark.usefixtures("client")
async def test_the_version_of_the_layout_is_left_in_redis(redis: Redis) -> None:
    assert await layout_in(redis) == b"1"


async def test_it_lies_behind_the_prefix_like_every_key(fake_redis: Redis, aiohttp_client: AiohttpClient) -> None:
    settings = Settings(session_key_prefix="app:")

    await aiohttp_client(ServiceServer(settings, fake_redis))

    assert await layout_in(fake_redis, "app:sessions:layout") == b"1"


async def test_a_layout_that_is_there_is_left_alone(redis: Redis, aiohttp_client: AiohttpClient) -> None:
    await redis.set("sessions:layout", 2)
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis))

    await report_of(client)

    assert await redis.get("sessions:layout") == b"2"


async def test_it_is_put_back_when_it_was_lost(
    redis: Redis, aiohttp_client: AiohttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.app.CHECK_INTERVAL_SECONDS", 0.01)
    await aiohttp_client(ServiceServer(Settings(), redis))
    await layout_in(redis)

    await redis.delete("sessions:layout")

    assert await layout_in(redis) == b"1"


# How many sessions


async def test_the_report_of_an_empty_store(client: HttpClient) -> None:
    response = await client.get(f"{SESSIONS}/health")

    report = await response.json()
    assert response.status == 200
    assert sorted(report) == ["activeSessions", "expiringSoon", "reasons", "status", "timestamp", "uptime"]
    assert (report["status"], report["activeSessions"], report["expiringSoon"]) == ("healthy", 0, 0)
    assert report["reasons"] == []


async def test_live_sessions_are_counted(client: HttpClient) -> None:
    await open_session(client)
    await open_session(client)

    assert (await report_of(client))["activeSessions"] == 2


async def test_those_within_their_warning_are_counted_as_expiring_soon(client: HttpClient, redis: Redis) -> None:
    await open_session(client)
    await age(redis, await open_session(client), 26 * MINUTE_MS)

    report = await report_of(client)

    assert (report["activeSessions"], report["expiringSoon"]) == (2, 1)


async def test_each_has_a_warning_of_its_own(client: HttpClient, redis: Redis) -> None:
    await age(redis, await open_session(client, timeoutConfig={"warningThresholdMinutes": 20}), 11 * MINUTE_MS)
    await age(redis, await open_session(client, timeoutConfig={"warningThresholdMinutes": 1}), 28 * MINUTE_MS)

    report = await report_of(client)

    assert (report["activeSessions"], report["expiringSoon"]) == (2, 1)


async def test_ended_sessions_are_not_counted(client: HttpClient, redis: Redis) -> None:
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


async def test_the_time_of_the_report_is_an_instant_in_utc(client: HttpClient) -> None:
    report = await report_of(client)

    assert INSTANT.fullmatch(report["timestamp"])


async def test_the_uptime_grows(client: HttpClient) -> None:
    first, second = await report_of(client), await report_of(client)

    assert 0 <= first["uptime"] <= second["uptime"]


async def test_without_redis_the_numbers_are_unknown(cut_off: HttpClient) -> None:
    response = await cut_off.get(f"{SESSIONS}/health")

    report = await response.json()
    assert response.status == 503
    assert response.headers["Retry-After"] == "1"
    assert (report["status"], report["activeSessions"], report["expiringSoon"]) == ("unhealthy", None, None)
    assert codes_in(report) == ["STORE_UNAVAILABLE"]
    assert INSTANT.fullmatch(report["timestamp"])


async def test_where_an_index_was_tampered_with_the_numbers_are_unknown(client: HttpClient, redis: Redis) -> None:
    await redis.set("sessions:{ab}:expiry", "no index", px=MINUTE_MS)

    response = await client.get(f"{SESSIONS}/health")

    assert response.status == 503
    assert (await response.json())["status"] == "unhealthy"


async def test_many_who_ask_at_once_share_one_count(
    real_redis: Redis, settings: Settings, aiohttp_client: AiohttpClient
) -> None:
    client: HttpClient = await aiohttp_client(ServiceServer(settings, real_redis))
    before = await calls(real_redis, "zcount")

    await asyncio.gather(*(report_of(client) for _ in range(20)))

    assert await calls(real_redis, "zcount") - before == 2 * 256


async def test_those_who_ask_within_a_second_share_one_look_at_what_is_not_well(
    fake_redis: Redis, settings: Settings, aiohttp_client: AiohttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = list[HealthReasons]()

    async def reasons(degradation: HealthReasons) -> list[Reason]:
        looks.append(degradation)
        return [Reason("CODE", "Why.")]

    monkeypatch.setattr(HealthReasons, "reasons", reasons)
    monkeypatch.setattr("service.maintenance.health._CACHE_SECONDS", 60)
    client: HttpClient = await aiohttp_client(ServiceServer(settings, fake_redis))

    reports = [await report_of(client), *await asyncio.gather(*(report_of(client) for _ in range(5)))]

    assert [codes_in(report) for report in reports] == [["CODE"]] * 6
    assert len(looks) == 1


async def test_what_is_not_well_is_not_said_for_long(
    client: HttpClient, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.maintenance.health._CACHE_SECONDS", -1)
    await report_of(client)
    session_id = await open_session(client)
    await redis.delete(Keys("").session(session_id))

    await client.get(f"{SESSIONS}/{session_id}")

    assert codes_in(await report_of(client)) == ["SESSIONS_LOST"]


async def test_a_count_is_not_kept_for_long(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.maintenance.health._CACHE_SECONDS", -1)
    await report_of(client)

    await open_session(client)

    assert (await report_of(client))["activeSessions"] == 1


async def test_a_count_that_failed_is_not_kept(cut_off: HttpClient, paused_redis: RedisServer) -> None:
    await report_of(cut_off)

    paused_redis.resume()

    assert (await report_of(cut_off))["status"] == "healthy"


async def test_health_is_not_taken_for_the_id_of_a_session(client: HttpClient) -> None:
    read = await client.get(f"{SESSIONS}/health")
    renewed = await client.post(f"{SESSIONS}/health/renew")

    assert read.status == 200
    assert (renewed.status, (await renewed.json())["code"]) == (404, "SESSION_NOT_FOUND")


# What is not well


async def test_where_a_session_was_lost_it_is_degraded(client: HttpClient, redis: Redis) -> None:
    session_id = await open_session(client)
    await redis.delete(Keys("").session(session_id))
    await client.get(f"{SESSIONS}/{session_id}")

    response = await client.get(f"{SESSIONS}/health")

    report = await response.json()
    assert (response.status, report["status"], codes_in(report)) == (200, "degraded", ["SESSIONS_LOST"])
    assert report["reasons"][0]["message"].startswith("In the last 15 minutes, sessions disappeared from Redis")


async def test_after_a_while_a_loss_is_no_news(
    client: HttpClient, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = await open_session(client)
    await redis.delete(Keys("").session(session_id))
    await client.get(f"{SESSIONS}/{session_id}")

    monkeypatch.setattr("service.maintenance.health.LOST_WITHIN_SECONDS", -1)

    assert (await report_of(client))["status"] == "healthy"


async def test_a_redis_that_evicts_is_degraded(evicting: RedisServer, aiohttp_client: AiohttpClient) -> None:
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis_py_client(evicting.url, 2)))

    report = await report_of(client)

    assert (report["status"], codes_in(report), report["activeSessions"]) == ("degraded", ["REDIS_EVICTS"], 0)
    assert "volatile-lru" in report["reasons"][0]["message"]


async def test_a_redis_that_no_longer_evicts_is_healthy(evicting: RedisServer, aiohttp_client: AiohttpClient) -> None:
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis_py_client(evicting.url, 2)))

    evicting.command("CONFIG", "SET", "maxmemory-policy", "noeviction")

    assert (await report_of(client))["status"] == "healthy"


async def test_a_redis_without_a_limit_evicts_nothing_whatever_its_policy(
    evicting: RedisServer, aiohttp_client: AiohttpClient
) -> None:
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis_py_client(evicting.url, 2)))

    evicting.command("CONFIG", "SET", "maxmemory", 0)

    assert (await report_of(client))["status"] == "healthy"


async def test_a_redis_that_does_not_tell_its_policy_is_healthy(
    evicting: RedisServer, aiohttp_client: AiohttpClient
) -> None:
    evicting.command("ACL", "SETUSER", "default", "-info")
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis_py_client(evicting.url, 2)))

    assert (await report_of(client))["status"] == "healthy"


async def test_a_sweeper_that_lags_is_degraded(
    redis: Redis, aiohttp_client: AiohttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.maintenance.health._LAG_SECONDS", -60)
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis))

    report = await report_of(client)

    assert (report["status"], codes_in(report)) == ("degraded", ["SWEEPER_LAGS"])


async def test_every_reason_is_given(evicting: RedisServer, sweeper: Sweeper, events: SessionEvents) -> None:
    sweeper.lag_ms = 3_600_000
    events.lost_session_requested("an id")
    rejections = Incident("", "")
    rejections.record_failure(CommandRejected("OOM command not allowed when used memory > 'maxmemory'."))

    async with redis_py_client(evicting.url, 2) as redis:
        reasons = await HealthReasons(redis_client_for(redis), sweeper, events, rejections, 5).reasons()

    assert [code for code, _ in reasons] == ["SWEEPER_LAGS", "SESSIONS_LOST", "REDIS_REFUSES", "REDIS_EVICTS"]


async def test_replicas_that_lag_are_no_refusal_of_redis(
    real_redis: Redis, sweeper: Sweeper, events: SessionEvents
) -> None:
    rejections = Incident("", "")
    rejections.record_failure(UnderReplicated("0 of 1 replicas acknowledged a write within 1000 ms", []))

    (reason,) = await HealthReasons(redis_client_for(real_redis), sweeper, events, rejections, 5).reasons()

    assert reason.code == "REPLICAS_BEHIND"
    assert "0 of 1 replicas acknowledged a write within 1000 ms" in reason.message


@pytest.mark.parametrize(("lag_ms", "lags"), [(74_000, []), (76_000, ["SWEEPER_LAGS"])])
async def test_a_sweeper_may_be_a_minute_and_three_rounds_behind(
    real_redis: Redis, sweeper: Sweeper, events: SessionEvents, lag_ms: int, lags: list[str]
) -> None:
    sweeper.lag_ms = lag_ms

    reasons = await HealthReasons(redis_client_for(real_redis), sweeper, events, Incident("", ""), 5).reasons()

    assert [code for code, _ in reasons] == lags


async def test_a_sweeper_that_does_not_look_lags(real_redis: Redis, sweeper: Sweeper, events: SessionEvents) -> None:
    sweeper.lag_measured_at -= 76

    (reason,) = await HealthReasons(redis_client_for(real_redis), sweeper, events, Incident("", ""), 5).reasons()

    assert reason.code == "SWEEPER_LAGS"
    assert "76 s behind" in reason.message
