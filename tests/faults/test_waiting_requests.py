"""The number of requests that wait for Redis is limited."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from service.errors import StoreUnavailable
from service.observability.metrics import Metrics
from service.redis_client.connector import Connector
from service.redis_client.factory import connection_factory, redis_py_client
from service.redis_client.monitor import StoreMonitor
from service.redis_client.pipeline import Pipeline
from service.sessions.scripts import SCRIPTS
from tests.redis_server import RedisServer

MAX_WAITING = 20
TIMEOUT_SECONDS = 2
TOO_MANY = "too many requests are waiting"


@pytest.fixture
async def pipeline(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pipeline]:
    """A pipeline with a limit of 20 waiting requests."""
    monkeypatch.setattr("service.redis_client.pipeline.MAX_WAITING", MAX_WAITING)
    connector = Connector(connection_factory(redis_py_client(own_redis.url, TIMEOUT_SECONDS)), SCRIPTS)
    pipeline = Pipeline(connector, TIMEOUT_SECONDS, StoreMonitor(Metrics()), SCRIPTS)
    await pipeline.read_hash("session:a", (b"x",))
    yield pipeline
    await pipeline.aclose()


async def outcome_of_read(pipeline: Pipeline) -> str:
    try:
        await pipeline.read_hash("session:a", (b"x",))
    except StoreUnavailable as error:
        return TOO_MANY if error.cause == TOO_MANY else "unavailable"
    return "completed"


async def outcomes_of_reads(pipeline: Pipeline, number: int) -> Counter[str]:
    return Counter(await asyncio.gather(*(outcome_of_read(pipeline) for _ in range(number))))


@pytest.mark.parametrize("times", [1, 3])
async def test_requests_beyond_the_limit_fail_at_once(own_redis: RedisServer, pipeline: Pipeline, times: int) -> None:
    own_redis.pause()
    outcomes = [await outcomes_of_reads(pipeline, MAX_WAITING + 10) for _ in range(times)]
    own_redis.resume()

    assert outcomes == [{"unavailable": MAX_WAITING, TOO_MANY: 10}] * times


async def test_timed_out_requests_make_room_for_others(own_redis: RedisServer, pipeline: Pipeline) -> None:
    own_redis.pause()
    await outcomes_of_reads(pipeline, MAX_WAITING + 10)
    own_redis.resume()

    async with asyncio.timeout(30):
        while await outcome_of_read(pipeline) != "completed":
            continue
    outcomes = await outcomes_of_reads(pipeline, MAX_WAITING)

    assert outcomes == {"completed": MAX_WAITING}
