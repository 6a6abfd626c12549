"""The client follows the primary of a Sentinel deployment, with authentication."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from service.errors import StoreUnavailable
from service.redis_client.client import RedisClient
from service.sessions.keys import Keys
from service.sessions.store import SessionStore
from service.settings import Settings
from tests.conftest import create_session, new_session_store
from tests.redis_client.conftest import connected
from tests.sentinel_servers import Logins, SentinelServers


@pytest.fixture(scope="module")
def servers() -> Iterator[SentinelServers]:
    """Servers that fail over."""
    with tempfile.TemporaryDirectory() as folder:
        servers = SentinelServers(Path(folder), logins=Logins())
        servers.start()
        yield servers
        servers.stop()


@pytest.fixture
async def redis_client(servers: SentinelServers) -> AsyncIterator[RedisClient]:
    async with connected(servers.url) as client:
        yield client


@pytest.fixture
def store(redis_client: RedisClient, settings: Settings) -> SessionStore:
    return new_session_store(redis_client, settings)


async def test_after_a_failover_writes_go_to_the_new_primary_although_the_old_one_still_accepts_them(
    store: SessionStore, servers: SentinelServers
) -> None:
    session = await create_session(store)
    old = servers.primary
    await asyncio.to_thread(servers.fail_over)

    assert old.command("ROLE")[0] == b"master"  # type: ignore[index]
    assert (await store.renew(session.id)).renewal_count == 1
    assert servers.primary.command("HGET", Keys("").session(session.id), "renewalCount") == b"1"


async def test_calls_succeed_while_one_sentinel_is_down(store: SessionStore, servers: SentinelServers) -> None:
    servers.sentinels[0].kill()

    session = await create_session(store)

    servers.sentinels[0].start()
    assert (await store.get(session.id)).id == session.id


@pytest.mark.parametrize("login", [f"{Logins().service}", "sentinel_username=watcher&sentinel_password=of-the-watcher"])
async def test_connections_without_a_login_for_servers_or_sentinels_are_rejected(
    servers: SentinelServers, login: str
) -> None:
    assert login in servers.url

    async with connected(servers.url.replace(login, "")) as client:
        with pytest.raises(StoreUnavailable):
            await client.query(("PING",))


async def test_an_error_of_a_sentinel_that_repeats_the_password_is_not_reported() -> None:
    async def repeat_command(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while received := await reader.read(1000):
            writer.write(b"-ERR unknown command, with args beginning with: %b\r\n" % b" ".join(received.split()))
        writer.close()

    async with await asyncio.start_server(repeat_command, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"redis+sentinel://127.0.0.1:{port}/main?sentinel_username=u&sentinel_password=hunter2"
        async with connected(url) as client:
            with pytest.raises(StoreUnavailable) as error:
                await client.query(("PING",))

    assert "does not support the command" in error.value.cause
    assert "hunter2" not in error.value.cause
