"""Redis hangs, or the network to it fails: requests receive 503 in bounded time, and the service recovers by itself."""

import asyncio
import time

import aiohttp
import pytest

from tests.conftest import AGENT, USER
from tests.faults.conftest import urls_of
from tests.faults.integrity import incomplete_sessions
from tests.faults.load import Load
from tests.faults.proxy import OPEN, SLOW, STALLED, TRICKLE, Link, Proxy
from tests.faults.scales import SCALES, Scale
from tests.memory import resident_kib
from tests.redis_server import RedisServer
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

MAX_RECOVERY_SECONDS = 10
MAX_GROWTH_KIB = 64 * 1024


@SCALES
def test_the_service_recovers_from_a_paused_redis(
    own_redis: RedisServer, proxied_replicas: list[Replica], scale: Scale
) -> None:
    with Load(urls_of(proxied_replicas), clients=scale.clients) as load:
        load.wait_for_successes(scale.requests)
        own_redis.pause()
        load.run_for(scale.pause_seconds)
        own_redis.resume()
        resumed_at = time.time()
        stable_at = load.wait_until_stable()
        load.wait_for_successes(scale.requests)

    assert load.violations == []
    assert load.failure_statuses == {503}
    assert load.failures(since=stable_at) == []
    assert stable_at - resumed_at < MAX_RECOVERY_SECONDS
    assert incomplete_sessions(own_redis.admin_url, load.checker.sessions) == []


@SCALES
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("replies", [OPEN, TRICKLE], ids=["at rest", "during replies"])
def test_lost_connections_leave_no_incomplete_sessions(
    proxy: Proxy, proxied_replicas: list[Replica], own_redis: RedisServer, scale: Scale, reset: bool, replies: Link
) -> None:
    with Load(urls_of(proxied_replicas), clients=scale.clients) as load:
        for _ in range(scale.repetitions):
            load.wait_for_successes(scale.requests)
            proxy.forward(replies=replies)
            load.run_for(scale.seconds / 5)
            proxy.disconnect(reset=reset)
            proxy.forward()
        stable_at = load.wait_until_stable()

    assert load.violations == []
    assert load.failure_statuses <= {503}
    assert load.failures(since=stable_at) == []
    assert incomplete_sessions(own_redis.admin_url, load.checker.sessions) == []


@SCALES
@pytest.mark.parametrize(
    "links",
    [{"requests": STALLED}, {"replies": STALLED}, {"requests": TRICKLE, "replies": TRICKLE}, {"replies": SLOW}],
    ids=["requests stall", "replies stall", "both trickle", "replies are slow"],
)
def test_the_service_recovers_from_a_slow_network(
    proxy: Proxy, proxied_replicas: list[Replica], own_redis: RedisServer, scale: Scale, links: dict[str, Link]
) -> None:
    with Load(urls_of(proxied_replicas), clients=scale.clients) as load:
        load.wait_for_successes(scale.requests)
        proxy.forward(**links)
        load.run_for(scale.pause_seconds)
        proxy.forward()
        resumed_at = time.time()
        stable_at = load.wait_until_stable()

    assert load.violations == []
    assert load.failure_statuses <= {503}
    assert stable_at - resumed_at < MAX_RECOVERY_SECONDS
    assert incomplete_sessions(own_redis.admin_url, load.checker.sessions) == []


@SCALES
def test_the_service_reconnects_to_an_unreachable_redis(
    proxy: Proxy, proxied_replicas: list[Replica], scale: Scale
) -> None:
    with Load(urls_of(proxied_replicas), clients=scale.clients) as load:
        proxy.disconnect(reset=True, refuse=True)
        load.run_for(scale.seconds)
        proxy.forward()
        resumed_at = time.time()
        stable_at = load.wait_until_stable()

    assert load.violations == []
    assert load.failure_statuses == {503}
    assert stable_at - resumed_at < MAX_RECOVERY_SECONDS


@SCALES
async def test_impatient_clients_do_not_fill_the_memory(
    own_redis: RedisServer, proxied_replicas: list[Replica], scale: Scale
) -> None:
    replica = proxied_replicas[0]
    _, session = await asyncio.to_thread(replica.call, "POST", SESSIONS, {"agentId": AGENT, "userId": USER})
    path = f"{SESSIONS}/{session['sessionId']}"
    before_kib = resident_kib(replica.pid)

    own_redis.pause()
    timeouts = await number_of_timeouts(replica.url + path, scale)
    own_redis.resume()
    status = await asyncio.to_thread(first_status_but_503, replica, path)

    assert timeouts > 100
    assert status == 200
    assert resident_kib(replica.pid) - before_kib < MAX_GROWTH_KIB


async def number_of_timeouts(url: str, scale: Scale) -> int:
    """Repeat requests with a timeout of 0.1 s from many clients. Returns how many of them timed out."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(0.1)) as http:
        deadline = asyncio.get_running_loop().time() + scale.seconds
        return sum(await asyncio.gather(*(_timeouts_until(deadline, http, url) for _ in range(10 * scale.clients))))


async def _timeouts_until(deadline: float, http: aiohttp.ClientSession, url: str) -> int:
    timeouts = 0
    while asyncio.get_running_loop().time() < deadline:
        try:
            async with http.get(url) as response:
                assert response.status == 503
        except TimeoutError:
            timeouts += 1
    return timeouts


def first_status_but_503(replica: Replica, path: str) -> int:
    while (status := replica.call("GET", path)[0]) == 503:
        continue
    return status
