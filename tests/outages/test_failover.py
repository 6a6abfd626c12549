"""A session survives a failover to a replica of Redis and back."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_aiohttp.plugin import AiohttpClient

from tests.conftest import HttpClient
from tests.outages.incidents import (
    SOON_SECONDS,
    call,
    polling,
    server_over,
)
from tests.redis_server import ADMIN, RedisServer, free_port
from tests.test_walkthrough import open_session


@pytest.fixture
def pair(data_dir: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """Two servers, of which the second replicates the first."""
    login = {"masteruser": ADMIN.user, "masterauth": ADMIN.password}
    first, second = (
        RedisServer(create_folder(data_dir, name), port=free_port(), settings=login) for name in ("1", "2")
    )
    first.start()
    first.command("CONFIG", "SET", "repl-diskless-sync-delay", 0)
    second.start()
    second.command("REPLICAOF", "127.0.0.1", first.port)
    yield first, second
    first.stop()
    second.stop()


def create_folder(data_dir: Path, name: str) -> Path:
    folder = data_dir / name
    folder.mkdir()
    return folder


def fail_over(old: RedisServer, new: RedisServer) -> None:
    """Promote the replica when it is in sync, and make the old primary its replica."""
    latest = time.monotonic() + SOON_SECONDS
    while "'master_link_status': 'up'" not in str(new.command("INFO", "replication")):
        assert time.monotonic() < latest
    new.command("REPLICAOF", "NO", "ONE")
    old.command("REPLICAOF", "127.0.0.1", new.port)


async def test_a_session_survives_a_failover_and_the_way_back(
    pair: tuple[RedisServer, RedisServer], aiohttp_client: AiohttpClient
) -> None:
    first, second = pair
    service: HttpClient = await aiohttp_client(server_over(first, 30))
    session_id = await open_session(service)

    async with polling(service, session_id) as poller:
        await asyncio.to_thread(fail_over, first, second)
        change = await call(service, session_id, "POST", "/heartbeat")
        await asyncio.to_thread(fail_over, second, first)
        await poller.wait_for(200)

    assert change.status == 503
    assert set(poller.statuses) <= {200, 503}
    assert (await call(service, session_id, "POST", "/heartbeat")).status == 200
