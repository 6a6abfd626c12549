"""What goes on beside the requests."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from service.errors import StoreUnavailable
from service.maintenance.startup_checks import StartupChecks
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.redis_client.factory import client_factory
from service.redis_client.monitor import StoreMonitor
from service.sessions.keys import Keys
from service.sessions.scripts import SCRIPTS
from service.sessions.store import SessionStore
from service.settings import Settings
from tests.conftest import create_session, new_session_events
from tests.log_events import logged_events
from tests.redis_contents import set_config
from tests.redis_server import RedisServer


@pytest.fixture
def upkeep(real_redis: Redis, redis_client: RedisClient) -> StartupChecks:
    return StartupChecks(redis_client, Keys(""), new_session_events(Metrics()))


def said_by(logger: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == logger]


@pytest.fixture
def unborn_server(data_dir: Path) -> Iterator[RedisServer]:
    """A server that is not started yet."""
    server = RedisServer(data_dir)
    yield server
    server.stop()


@pytest.fixture
async def large_session(store: SessionStore, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session whose hash is no listpack under a server's default settings, in the only shard that is looked at."""
    session = await create_session(store, metadata=b'{"note":"%b"}' % (b"x" * 65))
    monkeypatch.setattr("service.maintenance.startup_checks.SHARDS", (session.id[:2],))


async def test_a_round_marks_the_layout_of_the_data(upkeep: StartupChecks, real_redis: Redis) -> None:
    await upkeep.run()

    assert await real_redis.get("sessions:layout") == b"1"


async def test_a_round_leaves_the_mark_of_another_version_alone(upkeep: StartupChecks, real_redis: Redis) -> None:
    await real_redis.set("sessions:layout", "2")

    await upkeep.run()

    assert await real_redis.get("sessions:layout") == b"2"


async def test_a_mark_of_the_wrong_type_is_left_alone_and_is_no_trouble_of_its_own(
    upkeep: StartupChecks, real_redis: Redis
) -> None:
    await real_redis.sadd("sessions:layout", "1")

    await upkeep.run()

    assert await real_redis.type("sessions:layout") == b"set"


async def test_the_mark_is_looked_at_where_nothing_can_be_written(upkeep: StartupChecks, real_redis: Redis) -> None:
    await upkeep.run()
    await set_config(real_redis, "min-replicas-to-write", 1)

    (trouble,) = await asyncio.gather(upkeep.run(), return_exceptions=True)
    await set_config(real_redis, "min-replicas-to-write", 0)

    assert trouble is None


async def test_a_store_that_was_emptied_is_noticed(
    real_redis: Redis, redis_client: RedisClient, caplog: pytest.LogCaptureFixture
) -> None:
    events = new_session_events(Metrics())
    upkeep = StartupChecks(redis_client, Keys(""), events)
    await upkeep.run()
    at_first = events.last_loss_at
    await real_redis.flushall()

    await upkeep.run()

    assert at_first is None
    assert events.last_loss_at is not None
    assert [event["level"] for event in logged_events(caplog)] == ["warning"]


@pytest.mark.usefixtures("large_session")
async def test_hashes_larger_than_they_need_be_are_told_once(
    upkeep: StartupChecks, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    await upkeep.run()
    await upkeep.run()

    messages = said_by("service.maintenance.startup_checks", caplog)
    assert sum("hash-max-listpack-value" in message for message in messages) == 1


async def test_small_hashes_are_not_told(
    store: SessionStore,
    settings: Settings,
    upkeep: StartupChecks,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = await create_session(store)
    monkeypatch.setattr("service.maintenance.startup_checks.SHARDS", (session.id[:2],))

    await upkeep.run()

    messages = said_by("service.maintenance.startup_checks", caplog)
    assert not any("hash-max-listpack-value" in message for message in messages)


async def test_the_server_is_checked_once_as_soon_as_it_answers(
    unborn_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    source = client_factory(unborn_server.url, 1, StoreMonitor(Metrics()), SCRIPTS)
    redis_client = source.new_client()
    upkeep = StartupChecks(redis_client, Keys(""), new_session_events(Metrics()))
    with pytest.raises(StoreUnavailable):
        await upkeep.run()
    unborn_server.start()

    await upkeep.run()
    await upkeep.run()
    await redis_client.aclose()
    await source.aclose()

    (told,) = said_by("service.maintenance.startup_checks", caplog)
    assert "appendonly" in told
