"""While Redis stands still requests wait, but only so many and only so long: neither they nor the memory pile up."""

import asyncio
import subprocess
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp
import pytest

from service.errors import StoreUnavailable
from service.observability.metrics import Metrics
from service.redis_client.connector import Connector
from service.redis_client.factory import connection_factory, redis_py_client
from service.redis_client.monitor import StoreMonitor
from service.redis_client.pipeline import Pipeline
from service.sessions.scripts import SCRIPTS
from tests.conftest import AGENT, USER
from tests.faults.lengths import LENGTHS, Length
from tests.redis_server import RedisServer
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

MOST_WAITING = 20
TOO_MANY = "too many requests are waiting"
GROWTH_LIMIT_KIB = 64 * 1024


@pytest.fixture
async def narrow(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pipeline]:
    """A lane on which few may wait."""
    monkeypatch.setattr("service.redis_client.pipeline.MAX_QUEUED", MOST_WAITING)
    pipeline = Pipeline(
        Connector(connection_factory(redis_py_client(own_redis.url, 0.2)), SCRIPTS),
        0.2,
        StoreMonitor(Metrics()),
        SCRIPTS,
    )
    await pipeline.read_hash("session:a", (b"x",))
    yield pipeline
    await pipeline.aclose()


async def answer_of(pipeline: Pipeline) -> str:
    try:
        await pipeline.read_hash("session:a", (b"x",))
    except StoreUnavailable as error:
        return TOO_MANY if error.cause == TOO_MANY else "unavailable"
    return "answered"


@pytest.mark.parametrize("times", [1, 3])
async def test_beyond_so_many_nobody_waits(own_redis: RedisServer, narrow: Pipeline, times: int) -> None:
    own_redis.pause()
    crowds = [await crowd(narrow) for _ in range(times)]
    own_redis.resume()

    assert crowds == [{"unavailable": MOST_WAITING, TOO_MANY: 10}] * times


async def crowd(pipeline: Pipeline) -> Counter[str]:
    return Counter(await asyncio.gather(*(answer_of(pipeline) for _ in range(MOST_WAITING + 10))))


async def test_who_gave_up_waiting_leaves_room_for_others(own_redis: RedisServer, narrow: Pipeline) -> None:
    own_redis.pause()
    await crowd(narrow)
    own_redis.resume()

    async with asyncio.timeout(5):
        while await answer_of(narrow) != "answered":
            continue
    answers = await asyncio.gather(*(answer_of(narrow) for _ in range(MOST_WAITING)))

    assert Counter(answers) == {"answered": MOST_WAITING}


@LENGTHS
async def test_clients_that_hang_up_and_come_again_do_not_pile_up(
    own_redis: RedisServer, replicas: list[Replica], length: Length
) -> None:
    replica = replicas[0]
    _, session = await asyncio.to_thread(replica.call, "POST", SESSIONS, {"agentId": AGENT, "userId": USER})
    path = f"{SESSIONS}/{session['sessionId']}"
    before = memory_of(replica)

    own_redis.pause()
    given_up = await hung_up_on(replica.url + path, length)
    own_redis.resume()
    status, _ = await asyncio.to_thread(replies_or_none, replica, path)

    assert given_up > 100
    assert status == 200
    assert memory_of(replica) - before < GROWTH_LIMIT_KIB


async def hung_up_on(url: str, length: Length) -> int:
    """How often a crowd of clients gave up waiting for an answer, and came again, for so long."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(0.1)) as http:
        latest = asyncio.get_running_loop().time() + length.seconds
        return sum(await asyncio.gather(*(_impatient(http, url, latest) for _ in range(10 * length.clients))))


async def _impatient(http: aiohttp.ClientSession, url: str, latest: float) -> int:
    given_up = 0
    while asyncio.get_running_loop().time() < latest:
        try:
            async with http.get(url) as response:
                assert response.status == 503
        except TimeoutError:
            given_up += 1
    return given_up


def replies_or_none(replica: Replica, path: str) -> tuple[int, object]:
    """The first answer that is none of an outage."""
    while (answer := replica.call("GET", path))[0] == 503:
        continue
    return answer


def memory_of(replica: Replica) -> int:
    """What it holds of the machine's memory, in KiB."""
    return int(subprocess.run(["ps", "-o", "rss=", "-p", str(replica.pid)], capture_output=True, check=True).stdout)
