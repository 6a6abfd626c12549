"""The startup checks write the schema version, detect lost data, and check the server once."""

import asyncio
import logging

import pytest
from redis.asyncio import Redis

from service.errors import StoreUnavailable
from service.maintenance.startup_checks import STREAM_NODE_MAX_BYTES, StartupChecks
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
def checks(real_redis: Redis, redis_client: RedisClient) -> StartupChecks:
    return StartupChecks(redis_client, Keys(""), new_session_events(Metrics()))


def messages_of(logger: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == logger]


@pytest.fixture
async def large_session(store: SessionStore, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session whose hash is not a listpack with default settings, in the only shard that is checked."""
    session = await create_session(store, metadata=b'{"note":"%b"}' % (b"x" * 65))
    monkeypatch.setattr("service.maintenance.startup_checks.SHARDS", (session.id[:2],))


async def test_the_checks_write_the_schema_version(checks: StartupChecks, real_redis: Redis) -> None:
    await checks.run()

    assert await real_redis.get("sessions:layout") == b"1"


async def test_the_checks_do_not_overwrite_another_schema_version(checks: StartupChecks, real_redis: Redis) -> None:
    await real_redis.set("sessions:layout", "2")

    await checks.run()

    assert await real_redis.get("sessions:layout") == b"2"


async def test_a_schema_version_of_the_wrong_type_is_not_changed_and_not_an_error(
    checks: StartupChecks, real_redis: Redis
) -> None:
    await real_redis.sadd("sessions:layout", "1")

    await checks.run()

    assert await real_redis.type("sessions:layout") == b"set"


async def test_the_checks_succeed_while_redis_rejects_writes(checks: StartupChecks, real_redis: Redis) -> None:
    await checks.run()
    await set_config(real_redis, "min-replicas-to-write", 1)

    (error,) = await asyncio.gather(checks.run(), return_exceptions=True)
    await set_config(real_redis, "min-replicas-to-write", 0)

    assert error is None


async def test_an_emptied_store_is_detected(
    real_redis: Redis, redis_client: RedisClient, caplog: pytest.LogCaptureFixture
) -> None:
    events = new_session_events(Metrics())
    checks = StartupChecks(redis_client, Keys(""), events)
    await checks.run()
    loss_before = events.last_loss_at
    await real_redis.flushall()

    await checks.run()

    assert loss_before is None
    assert events.last_loss_at is not None
    assert [event["level"] for event in logged_events(caplog)] == ["warning"]


@pytest.mark.usefixtures("large_session")
async def test_hashes_that_use_too_much_memory_are_logged_once(
    checks: StartupChecks, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    await checks.run()
    await checks.run()

    messages = messages_of("service.maintenance.startup_checks", caplog)
    assert sum("hash-max-listpack-value" in message for message in messages) == 1


async def test_small_hashes_are_not_logged(
    store: SessionStore,
    settings: Settings,
    checks: StartupChecks,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = await create_session(store)
    monkeypatch.setattr("service.maintenance.startup_checks.SHARDS", (session.id[:2],))

    await checks.run()

    messages = messages_of("service.maintenance.startup_checks", caplog)
    assert not any("hash-max-listpack-value" in message for message in messages)


@pytest.fixture
async def session_with_message(store: SessionStore, real_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session with a stream of messages, in the only shard that is checked."""
    session = await create_session(store)
    messages = Keys("").of(session.id).messages
    await real_redis.xadd(messages, {"content": "Hello"})
    await real_redis.expire(messages, 60)
    monkeypatch.setattr("service.maintenance.startup_checks.SHARDS", (session.id[:2],))


@pytest.mark.usefixtures("session_with_message")
@pytest.mark.parametrize(("node_bytes", "warnings"), [(4096, 1), (STREAM_NODE_MAX_BYTES, 0)])
async def test_large_nodes_of_streams_are_logged_once(
    checks: StartupChecks, real_redis: Redis, caplog: pytest.LogCaptureFixture, node_bytes: int, warnings: int
) -> None:
    caplog.set_level(logging.WARNING)
    await set_config(real_redis, "stream-node-max-bytes", node_bytes)

    await checks.run()
    await checks.run()

    await set_config(real_redis, "stream-node-max-bytes", 4096)
    messages = messages_of("service.maintenance.startup_checks", caplog)
    assert sum("stream-node-max-bytes" in message for message in messages) == warnings


async def test_the_server_is_checked_once_as_soon_as_it_responds(
    stopped_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    factory = client_factory(stopped_redis.url, 10, StoreMonitor(Metrics()), SCRIPTS)
    redis_client = factory.new_client()
    checks = StartupChecks(redis_client, Keys(""), new_session_events(Metrics()))
    with pytest.raises(StoreUnavailable):
        await checks.run()
    stopped_redis.start()

    await checks.run()
    await checks.run()
    await redis_client.aclose()
    await factory.aclose()

    (message,) = messages_of("service.maintenance.startup_checks", caplog)
    assert "appendonly" in message
