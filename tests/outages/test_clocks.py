"""Sessions expire by the clock of Redis, exactly once."""

import asyncio
import time
from datetime import datetime
from itertools import groupby

import pytest
import redis as redis_py
from pytest_aiohttp.plugin import AiohttpClient

from tests.conftest import HttpClient
from tests.outages.incidents import (
    call,
    polling,
    server_over,
    status_of,
)
from tests.redis_server import RedisServer
from tests.test_walkthrough import MINUTE_MS, open_session


@pytest.fixture(params=[-600, 600], ids=["ten minutes slow", "ten minutes fast"])
def wrong_clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the service is wrong, not the clock of Redis."""
    right, offset = time.time, request.param
    monkeypatch.setattr("time.time", lambda: right() + offset)
    monkeypatch.setattr("time.time_ns", lambda: int((right() + offset) * 1e9))


@pytest.mark.usefixtures("wrong_clock")
async def test_a_wrong_replica_clock_does_not_change_session_times(service: HttpClient, own_redis: RedisServer) -> None:
    before_ms = now_ms(own_redis)
    session_id = await open_session(service)

    session = await (await call(service, session_id, "POST", "/heartbeat")).json()

    assert before_ms <= to_ms(session["createdAt"]) <= now_ms(own_redis)
    assert to_ms(session["expiresAt"]) - to_ms(session["lastActivity"]) == 30 * MINUTE_MS
    assert session["timeRemaining"] == 30 * MINUTE_MS


@pytest.mark.usefixtures("wrong_clock")
async def test_a_wrong_replica_clock_does_not_change_when_sessions_expire(
    own_redis: RedisServer, aiohttp_client: AiohttpClient
) -> None:
    service: HttpClient = await aiohttp_client(server_over(own_redis, 30, session_min_timeout_minutes=0.001))
    lasting = await open_session(service, timeoutConfig={"timeoutMinutes": 5})
    brief = await open_session(service, timeoutConfig={"timeoutMinutes": 0.001})

    async with polling(service, brief) as poller:
        await poller.wait_for(410)

    assert (await call(service, lasting)).status == 200


@pytest.mark.parametrize(("method", "verb"), [("GET", ""), ("POST", "/heartbeat")])
async def test_a_session_changes_from_200_to_410_once_and_never_back(
    own_redis: RedisServer, aiohttp_client: AiohttpClient, method: str, verb: str
) -> None:
    service: HttpClient = await aiohttp_client(server_over(own_redis, 30, session_min_timeout_minutes=0.001))
    brief = {"timeoutMinutes": 0.0015, "autoRenew": False}
    sessions = [await open_session(service, timeoutConfig=brief) for _ in range(5)]

    lives = await asyncio.gather(*(statuses_of(service, session_id, method, verb) for session_id in sessions * 4))

    assert set(lives) <= {(200, 410), (410,)}


async def statuses_of(service: HttpClient, session_id: str, method: str, verb: str) -> tuple[int, ...]:
    """Return the status codes until ten of them are 410 or 404, without consecutive duplicates."""
    statuses: list[int] = []
    while statuses.count(410) + statuses.count(404) < 10:
        statuses.append(await status_of(call(service, session_id, method, verb)))
    return tuple(status for status, _ in groupby(statuses))


def now_ms(server: RedisServer) -> int:
    with redis_py.Redis.from_url(server.admin_url) as client:
        seconds, microseconds = client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000


def to_ms(instant: str) -> int:
    return round(datetime.fromisoformat(instant).timestamp() * 1000)
