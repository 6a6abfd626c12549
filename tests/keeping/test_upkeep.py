"""What goes on beside the requests."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from service.errors import StoreUnavailable
from service.keeping.upkeep import Upkeep
from service.lanes.connect import source_of
from service.lanes.lane import Lane
from service.lanes.store_watch import StoreWatch
from service.life.keys import Keys
from service.life.store import Store
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.conftest import AGENT, USER, lifecycle_into
from tests.redis_server import RedisServer
from tests.store.evidence import configured


@pytest.fixture
def upkeep(real_redis: Redis, lane: Lane) -> Upkeep:
    return Upkeep(lane, Keys(""), lifecycle_into(Metrics()))


def said_by(logger: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == logger]


@pytest.fixture
def unborn_server(data_dir: Path) -> Iterator[RedisServer]:
    """A server that is not started yet."""
    server = RedisServer(data_dir)
    yield server
    server.stop()


@pytest.fixture
async def large_session(store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session whose hash is no listpack under a server's default settings, in the only shard that is looked at."""
    session = await store.create(AGENT, USER, {}, b'{"note":"%b"}' % (b"x" * 65))
    monkeypatch.setattr("service.keeping.upkeep.SHARDS", (session.id[:2],))


async def test_a_round_marks_the_layout_of_the_data(upkeep: Upkeep, real_redis: Redis) -> None:
    await upkeep.round()

    assert await real_redis.get("sessions:layout") == b"1"


async def test_a_round_leaves_the_mark_of_another_version_alone(upkeep: Upkeep, real_redis: Redis) -> None:
    await real_redis.set("sessions:layout", "2")

    await upkeep.round()

    assert await real_redis.get("sessions:layout") == b"2"


async def test_a_mark_of_the_wrong_type_is_left_alone_and_is_no_trouble_of_its_own(
    upkeep: Upkeep, real_redis: Redis
) -> None:
    await real_redis.sadd("sessions:layout", "1")

    await upkeep.round()

    assert await real_redis.type("sessions:layout") == b"set"


async def test_the_mark_is_looked_at_where_nothing_can_be_written(upkeep: Upkeep, real_redis: Redis) -> None:
    await upkeep.round()
    await configured(real_redis, "min-replicas-to-write", 1)

    (trouble,) = await asyncio.gather(upkeep.round(), return_exceptions=True)
    await configured(real_redis, "min-replicas-to-write", 0)

    assert trouble is None


async def test_a_store_that_was_emptied_is_noticed(real_redis: Redis, lane: Lane) -> None:
    lifecycle = lifecycle_into(Metrics())
    upkeep = Upkeep(lane, Keys(""), lifecycle)
    await upkeep.round()
    at_first = lifecycle.last_lost
    await real_redis.flushall()

    with capture_logs() as told:
        await upkeep.round()

    assert at_first is None
    assert lifecycle.last_lost is not None
    assert [line["log_level"] for line in told] == ["warning"]


@pytest.mark.usefixtures("large_session")
async def test_hashes_larger_than_they_need_be_are_told_once(upkeep: Upkeep, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    await upkeep.round()
    await upkeep.round()

    (told,) = said_by("service.keeping.upkeep", caplog)
    assert "hash-max-listpack-value" in told


async def test_small_hashes_are_not_told(
    store: Store,
    settings: Settings,
    upkeep: Upkeep,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = await store.create(AGENT, USER, {}, b"{}")
    monkeypatch.setattr("service.keeping.upkeep.SHARDS", (session.id[:2],))

    await upkeep.round()

    assert said_by("service.keeping.upkeep", caplog) == []


async def test_the_server_is_checked_once_as_soon_as_it_answers(
    unborn_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    source = source_of(unborn_server.url, 1, StoreWatch(Metrics()))
    lane = source.new_lane()
    upkeep = Upkeep(lane, Keys(""), lifecycle_into(Metrics()))
    with pytest.raises(StoreUnavailable):
        await upkeep.round()
    unborn_server.start()

    await upkeep.round()
    await upkeep.round()
    await lane.aclose()
    await source.aclose()

    (told,) = said_by("service.checks.server_checks", caplog)
    assert "appendonly" in told
