"""While one node of a cluster is down, the service serves the sessions of the other nodes."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, cast

import pytest
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode

from service.rate_limit.buckets import Buckets, Limit, RateLimitStatus
from service.sessions.keys import SHARDS
from service.settings import Settings
from service.settings.rate_limits import Rate
from tests.cluster_servers import ClusterServers, Node
from tests.conftest import AGENT, USER, HttpClient, ServiceServer
from tests.log_events import logged_events
from tests.redis_client.conftest import connected
from tests.redis_contents import KEYS
from tests.test_walkthrough import SESSIONS

TIMEOUT_SECONDS = 2

Start = Callable[[], Coroutine[Any, Any, HttpClient]]


@pytest.fixture(autouse=True)
def restored(cluster_servers: ClusterServers) -> Iterator[None]:
    """Resume the lost node after each test, and delete all keys."""
    yield
    cluster_servers.restore()


@pytest.fixture
def start_service(cluster_servers: ClusterServers, aiohttp_client: AiohttpClient) -> Start:
    """Starts the service in this process."""

    async def start() -> HttpClient:
        settings = Settings(session_store_timeout_seconds=TIMEOUT_SECONDS)
        redis = RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", node.port) for node in cluster_servers.servers])
        return await aiohttp_client(ServiceServer(settings, cast(Redis, redis)))

    return start


async def status_of(client: HttpClient, path: str) -> int:
    async with client.get(path) as response:
        return response.status


async def test_a_service_started_while_the_schema_version_is_lost_is_not_ready(
    cluster_servers: ClusterServers, start_service: Start, caplog: pytest.LogCaptureFixture
) -> None:
    node = cluster_servers.owner_of_key(KEYS.layout)
    node.command("SET", KEYS.layout, "2")
    node.pause()
    client = await start_service()

    async with client.post(SESSIONS, json={"agentId": AGENT, "userId": USER}) as response:
        assert response.status == 503
    assert await status_of(client, "/readyz") == 503

    node.resume()
    async with asyncio.timeout(30):
        while "schema version 2" not in caplog.text:
            await status_of(client, "/readyz")


async def test_a_service_that_has_read_the_schema_version_stays_ready(
    cluster_servers: ClusterServers, start_service: Start
) -> None:
    client = await start_service()
    before = await status_of(client, "/readyz")
    cluster_servers.owner_of_key(KEYS.layout).pause()

    assert (before, await status_of(client, "/readyz")) == (200, 200)


async def test_a_service_started_while_the_shared_secret_is_lost_serves_other_nodes_and_logs_no_ids(
    cluster_servers: ClusterServers, start_service: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    lost = cluster_servers.owner_of_key(KEYS.secret)
    shard = next(shard for shard in SHARDS if cluster_servers.owner_of_key(KEYS.expiry(shard)) is not lost)
    lost.pause()
    client = await start_service()

    assert await status_of(client, f"{SESSIONS}/{shard}16d2ea-673d-47d0-b1bd-33202db7411b") == 404
    assert await status_of(client, "/readyz") == 200
    assert "hidden" in [event.get("session") for event in logged_events(caplog)]


# Rate limits


async def test_the_rate_limiter_fails_open_only_for_buckets_on_the_lost_node(cluster_servers: ClusterServers) -> None:
    lost, other = cluster_servers.primaries[:2]
    addresses = [address_on(cluster_servers, node) for node in (lost, other)]
    lost.pause()

    async with connected(cluster_servers.url, TIMEOUT_SECONDS) as client:
        allowed = [await number_allowed_of(5, Buckets(client), address) for address in addresses]

    assert allowed == [5, 3]


async def number_allowed_of(requests: int, buckets: Buckets, address: str) -> int:
    """How many of these concurrent requests a limit of three per hour allows."""
    keys, limit = KEYS.requests("address", address), Limit("address", Rate(3, 3600))
    calls = (buckets.take(keys, limit, None, RateLimitStatus()) for _ in range(requests))
    results = await asyncio.gather(*calls, return_exceptions=True)
    return results.count(None)


def address_on(cluster_servers: ClusterServers, node: Node) -> str:
    """An address whose buckets are on this node."""
    addresses = (f"203.0.113.{number}" for number in range(256))
    keys = {address: KEYS.requests("address", address).bucket for address in addresses}
    return next(address for address, key in keys.items() if cluster_servers.owner_of_key(key) is node)
