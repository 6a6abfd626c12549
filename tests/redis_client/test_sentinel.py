"""A lane behind Sentinel through a failover: the new primary is heard of, and the old one is not asked any more."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from service.errors import StoreUnavailable
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.redis_client.factory import client_factory
from service.redis_client.monitor import StoreMonitor
from service.sessions.keys import Keys
from service.sessions.scripts import SCRIPTS
from service.sessions.store import SessionStore
from service.settings import Settings
from tests.conftest import create_session, store_on
from tests.sentinel_servers import SentinelServers


@pytest.fixture(scope="module")
def servers() -> Iterator[SentinelServers]:
    """Servers that fail over."""
    with tempfile.TemporaryDirectory() as folder:
        servers = SentinelServers(Path(folder))
        servers.start()
        yield servers
        servers.stop()


@pytest.fixture
async def redis_client(servers: SentinelServers) -> AsyncIterator[RedisClient]:
    source = client_factory(servers.url, 2, StoreMonitor(Metrics()), SCRIPTS)
    redis_client = source.new_client()
    yield redis_client
    await redis_client.aclose()
    await source.aclose()


@pytest.fixture
def store(redis_client: RedisClient, settings: Settings) -> SessionStore:
    return store_on(redis_client, settings)


async def test_from_a_failover_on_changes_go_to_the_new_primary_though_the_old_one_takes_them_for_seconds(
    store: SessionStore, servers: SentinelServers
) -> None:
    session = await create_session(store)
    old = servers.primary
    await asyncio.to_thread(servers.fail_over)

    assert old.command("ROLE")[0] == b"master"  # type: ignore[index]
    assert (await store.renew(session.id)).renewal_count == 1
    assert servers.primary.command("HGET", Keys("").session(session.id), "renewalCount") == b"1"


async def test_a_sentinel_that_has_gone_holds_up_nothing(store: SessionStore, servers: SentinelServers) -> None:
    servers.sentinels[0].kill()

    session = await create_session(store)

    servers.sentinels[0].start()
    assert (await store.get(session.id)).id == session.id


async def test_what_a_sentinel_repeats_of_the_login_is_not_told() -> None:
    async def parrot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while asked := await reader.read(1000):
            writer.write(b"-ERR unknown command, with args beginning with: %b\r\n" % b" ".join(asked.split()))
        writer.close()

    async with await asyncio.start_server(parrot, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"redis+sentinel://127.0.0.1:{port}/main?sentinel_username=u&sentinel_password=hunter2"
        source = client_factory(url, 1, StoreMonitor(Metrics()), SCRIPTS)
        redis_client = source.new_client()
        with pytest.raises(StoreUnavailable) as refusal:
            await redis_client.query(("PING",))
        await redis_client.aclose()
        await source.aclose()

    assert "does not support the command" in refusal.value.cause
    assert "hunter2" not in refusal.value.cause
