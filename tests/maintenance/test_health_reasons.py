"""The health report lists the reasons for which a service is degraded."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.maintenance.health import HealthReasons
from service.maintenance.sweeper import Sweeper
from service.observability.metrics import Metrics
from service.redis_client.errors import CommandRejected, UnderReplicated
from service.redis_client.factory import redis_py_client
from service.redis_client.monitor import Incident
from service.sessions.events import SessionEvents
from service.sessions.keys import Keys
from service.settings import Settings
from tests.conftest import HttpClient, ServiceServer, new_session_events, redis_client_for
from tests.maintenance.health import codes_in, report_of
from tests.redis_server import RedisServer
from tests.test_walkthrough import SESSIONS, open_session


@pytest.fixture
def evicting_redis(data_dir: Path) -> Iterator[RedisServer]:
    """A server that evicts keys when its memory is full."""
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


async def test_a_lost_session_degrades_the_service(client: HttpClient, redis: Redis) -> None:
    session_id = await open_session(client)
    await redis.delete(Keys("").session(session_id))
    await client.get(f"{SESSIONS}/{session_id}")

    response = await client.get(f"{SESSIONS}/health")

    report = await response.json()
    assert (response.status, report["status"], codes_in(report)) == (200, "degraded", ["SESSIONS_LOST"])
    assert report["reasons"][0]["message"].startswith("In the last 15 minutes, sessions disappeared from Redis")


async def test_an_old_loss_does_not_degrade_the_service(
    client: HttpClient, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = await open_session(client)
    await redis.delete(Keys("").session(session_id))
    await client.get(f"{SESSIONS}/{session_id}")

    monkeypatch.setattr("service.maintenance.health.LOST_WITHIN_SECONDS", -1)

    assert (await report_of(client))["status"] == "healthy"


async def test_an_evicting_redis_degrades_the_service(
    evicting_redis: RedisServer, aiohttp_client: AiohttpClient
) -> None:
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis_py_client(evicting_redis.url, 10)))

    report = await report_of(client)

    assert (report["status"], codes_in(report), report["activeSessions"]) == ("degraded", ["REDIS_EVICTS"], 0)
    assert "volatile-lru" in report["reasons"][0]["message"]


async def test_the_service_is_healthy_after_redis_stops_evicting(
    evicting_redis: RedisServer, aiohttp_client: AiohttpClient
) -> None:
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis_py_client(evicting_redis.url, 10)))

    evicting_redis.command("CONFIG", "SET", "maxmemory-policy", "noeviction")

    assert (await report_of(client))["status"] == "healthy"


async def test_an_eviction_policy_without_a_memory_limit_is_healthy(
    evicting_redis: RedisServer, aiohttp_client: AiohttpClient
) -> None:
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis_py_client(evicting_redis.url, 10)))

    evicting_redis.command("CONFIG", "SET", "maxmemory", 0)

    assert (await report_of(client))["status"] == "healthy"


async def test_an_unreadable_eviction_policy_is_healthy(
    evicting_redis: RedisServer, aiohttp_client: AiohttpClient
) -> None:
    evicting_redis.command("ACL", "SETUSER", "default", "-info")
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis_py_client(evicting_redis.url, 10)))

    assert (await report_of(client))["status"] == "healthy"


async def test_a_lagging_sweeper_degrades_the_service(
    redis: Redis, aiohttp_client: AiohttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.maintenance.health._LAG_SECONDS", -60)
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), redis))

    report = await report_of(client)

    assert (report["status"], codes_in(report)) == ("degraded", ["SWEEPER_LAGS"])


async def test_all_reasons_are_reported(evicting_redis: RedisServer, sweeper: Sweeper, events: SessionEvents) -> None:
    sweeper.lag_ms = 3_600_000
    events.lost_session_requested("an id")
    rejections = Incident("", "")
    rejections.record_failure(CommandRejected("OOM command not allowed when used memory > 'maxmemory'."))

    async with redis_py_client(evicting_redis.url, 10) as redis:
        reasons = await HealthReasons(redis_client_for(redis), sweeper, events, rejections, 5).reasons()

    assert [code for code, _ in reasons] == ["SWEEPER_LAGS", "SESSIONS_LOST", "REDIS_REFUSES", "REDIS_EVICTS"]


async def test_lagging_replicas_have_their_own_code(real_redis: Redis, sweeper: Sweeper, events: SessionEvents) -> None:
    rejections = Incident("", "")
    rejections.record_failure(UnderReplicated("0 of 1 replicas acknowledged a write within 1000 ms", []))

    (reason,) = await HealthReasons(redis_client_for(real_redis), sweeper, events, rejections, 5).reasons()

    assert reason.code == "REPLICAS_BEHIND"
    assert "0 of 1 replicas acknowledged a write within 1000 ms" in reason.message


@pytest.mark.parametrize(("lag_ms", "lags"), [(74_000, []), (76_000, ["SWEEPER_LAGS"])])
async def test_a_sweeper_lags_after_a_minute_and_three_intervals(
    real_redis: Redis, sweeper: Sweeper, events: SessionEvents, lag_ms: int, lags: list[str]
) -> None:
    sweeper.lag_ms = lag_ms

    reasons = await HealthReasons(redis_client_for(real_redis), sweeper, events, Incident("", ""), 5).reasons()

    assert [code for code, _ in reasons] == lags


async def test_a_sweeper_without_a_recent_measurement_lags(
    real_redis: Redis, sweeper: Sweeper, events: SessionEvents
) -> None:
    sweeper.lag_measured_at -= 76

    (reason,) = await HealthReasons(redis_client_for(real_redis), sweeper, events, Incident("", ""), 5).reasons()

    assert reason.code == "SWEEPER_LAGS"
    assert "76 s behind" in reason.message
