"""Subscriptions on one server, with Sentinel and on a cluster, through lost connections and moved channels."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection

from service.errors import StoreUnavailable
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.redis_client.factory import ClientFactory, client_factory
from service.redis_client.monitor import StoreMonitor
from service.redis_client.subscriber import Subscriber
from service.sessions.keys import SHARDS, Keys
from service.sessions.scripts import SCRIPTS
from service.settings.redis_url import Host, Kind
from tests.cluster_servers import ClusterServers
from tests.conftest import service_connection_factory
from tests.sentinel_servers import SentinelServers

KEYS = Keys("")
CHANNELS = [KEYS.channel(f"{shard}90c3cc") for shard in SHARDS[::16]]
"""Channels on all nodes of a cluster."""
CHANNEL = CHANNELS[0]


@pytest.fixture(params=["server", "sentinel", "cluster"])
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


class Recorder:
    """Records the messages of a channel. A gap is None."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[str | None] = asyncio.Queue()

    def on_message(self, message: str) -> None:
        self.received.put_nowait(message)

    def on_gap(self) -> None:
        self.received.put_nowait(None)

    async def next(self) -> str | None:
        async with asyncio.timeout(20):
            return await self.received.get()

    async def gap(self) -> None:
        while await self.next() is not None:
            continue


@pytest.fixture
def subscriber(redis_client_factory: ClientFactory) -> Subscriber:
    return redis_client_factory.subscriber


@pytest.fixture
async def subscribed(subscriber: Subscriber) -> AsyncIterator[dict[str, Recorder]]:
    recorders = {channel: Recorder() for channel in CHANNELS}
    for channel, recorder in recorders.items():
        await subscriber.subscribe(channel, recorder)
    yield recorders
    await subscriber.aclose()


async def publish(client: RedisClient, channel: str, message: str) -> None:
    await client.execute(("SPUBLISH", channel, message))


async def kill_subscriptions(redis: Redis) -> None:
    await cast(Any, redis).execute_command("CLIENT KILL", "TYPE", "pubsub", **_all_nodes(redis))


def _all_nodes(redis: Redis) -> dict[str, Any]:
    return {"target_nodes": RedisCluster.ALL_NODES} if isinstance(redis, RedisCluster) else {}


async def test_each_listener_receives_the_messages_of_its_channel(
    subscribed: dict[str, Recorder], redis_client: RedisClient
) -> None:
    for channel in subscribed:
        await publish(redis_client, channel, channel)

    assert [await recorder.next() for recorder in subscribed.values()] == CHANNELS


async def test_after_a_lost_connection_listeners_learn_of_a_gap_and_receive_messages(
    subscribed: dict[str, Recorder], redis_client: RedisClient, real_redis: Redis
) -> None:
    await kill_subscriptions(real_redis)

    for recorder in subscribed.values():
        await recorder.gap()
    for channel in subscribed:
        await publish(redis_client, channel, channel)

    assert [await recorder.next() for recorder in subscribed.values()] == CHANNELS


async def test_a_channel_without_listeners_is_left(
    subscribed: dict[str, Recorder], subscriber: Subscriber, redis_client: RedisClient
) -> None:
    left = subscribed[CHANNEL]
    subscriber.unsubscribe(CHANNEL, left)
    for channel in subscribed:
        await publish(redis_client, channel, "later")

    await subscribed[CHANNELS[1]].next()
    assert left.received.empty()


async def test_a_listener_that_leaves_and_returns_receives_messages(
    subscribed: dict[str, Recorder], subscriber: Subscriber, redis_client: RedisClient
) -> None:
    recorder = subscribed[CHANNEL]
    for _ in range(10):
        subscriber.unsubscribe(CHANNEL, recorder)
        await subscriber.subscribe(CHANNEL, recorder)
    await publish(redis_client, CHANNEL, "here")

    while (message := await recorder.next()) is None:  # a gap
        continue
    assert message == "here"


async def test_an_unreachable_server_is_unavailable() -> None:
    factory = client_factory("redis://127.0.0.1:1", 0.2, StoreMonitor(Metrics()), SCRIPTS)

    with pytest.raises(StoreUnavailable):
        await factory.subscriber.subscribe(CHANNEL, Recorder())

    await factory.aclose()


@pytest.mark.parametrize("kind", ["server"])
async def test_a_failover_during_the_pause_after_a_failure_does_not_end_a_subscription(
    redis_url: str, real_redis: Redis
) -> None:
    """The primary's connection breaks first, and the subscriber learns of the other primary shortly after."""
    failed = asyncio.Event()

    async def locate(_: str) -> Host | None:
        return None

    async def connect_to(_: Host | None) -> AbstractConnection:
        if not failed.is_set():
            failed.set()
            raise ConnectionResetError("the primary stopped")
        return await service_connection_factory(real_redis)()

    subscriber = Subscriber(locate, connect_to, 10)
    subscribing = asyncio.create_task(subscriber.subscribe(CHANNEL, Recorder()))
    await failed.wait()
    await asyncio.sleep(0)

    subscriber.leave_other_servers(("127.0.0.1", 1))

    await subscribing
    await subscriber.aclose()


@pytest.mark.parametrize("kind", ["sentinel"])
async def test_after_a_failover_listeners_receive_messages_of_the_new_primary(
    subscribed: dict[str, Recorder], redis_client: RedisClient, sentinel_servers: SentinelServers
) -> None:
    await asyncio.to_thread(sentinel_servers.fail_over)

    await subscribed[CHANNEL].gap()
    await publish(redis_client, CHANNEL, "here")

    while (message := await subscribed[CHANNEL].next()) is None:
        continue
    assert message == "here"


@pytest.mark.parametrize("kind", ["cluster"])
async def test_a_moved_channel_is_followed(
    subscribed: dict[str, Recorder], redis_client: RedisClient, cluster_servers: ClusterServers
) -> None:
    slot = cluster_servers.slot_of(CHANNEL)
    source = cluster_servers.owner_of(slot)
    target = next(node for node in cluster_servers.primaries if node is not source)

    with cluster_servers.migrating(slot, to=target):
        pass

    await subscribed[CHANNEL].gap()
    await publish(redis_client, CHANNEL, "here")
    while (message := await subscribed[CHANNEL].next()) is None:
        continue
    assert message == "here"
    await asyncio.to_thread(cluster_servers.restore)
