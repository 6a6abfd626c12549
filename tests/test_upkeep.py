"""What goes on beside the requests."""

import logging

import pytest
from redis.asyncio import Redis

from service.keys import Keys
from service.settings import Settings
from service.store import Store
from service.upkeep import Upkeep
from tests.conftest import AGENT, USER


@pytest.fixture
def upkeep(real_redis: Redis) -> Upkeep:
    return Upkeep(real_redis, Keys(""))


@pytest.fixture
async def large_session(store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session whose hash is no listpack under a server's default settings, in the only shard that is looked at."""
    session = await store.create(AGENT, USER, {}, b'{"note":"%b"}' % (b"x" * 65))
    monkeypatch.setattr("service.upkeep.SHARDS", (session.id[:2],))


async def test_a_round_marks_the_layout_of_the_data(upkeep: Upkeep, real_redis: Redis) -> None:
    await upkeep.round()

    assert await real_redis.get("sessions:layout") == b"1"


async def test_a_round_leaves_the_mark_of_another_version_alone(upkeep: Upkeep, real_redis: Redis) -> None:
    await real_redis.set("sessions:layout", "2")

    await upkeep.round()

    assert await real_redis.get("sessions:layout") == b"2"


@pytest.mark.usefixtures("large_session")
async def test_hashes_larger_than_they_need_be_are_told_once(upkeep: Upkeep, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    await upkeep.round()
    await upkeep.round()

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "hash-max-listpack-value" in caplog.text


async def test_small_hashes_are_not_told(
    store: Store,
    settings: Settings,
    upkeep: Upkeep,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = await store.create(AGENT, USER, {}, b"{}")
    monkeypatch.setattr("service.upkeep.SHARDS", (session.id[:2],))

    await upkeep.round()

    assert caplog.records == []
