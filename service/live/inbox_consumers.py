"""Wait for deliveries in the inboxes of agents."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from service.messages.inbox import Delivery, Inboxes
from service.messages.message import sent_at_of
from service.observability.metrics import Metrics
from service.redis_client.subscriber import Subscriber
from service.sessions.keys import Keys

POLL_SECONDS = 5
"""An inbox is read at least this often while a consumer waits."""


class InboxConsumer:
    """One consumer of an agent's inbox. It leases nothing for a client that has disconnected."""

    def __init__(self, agent_id: str, is_connected: Callable[[], bool], inboxes: Inboxes, metrics: Metrics) -> None:
        self._agent_id = agent_id
        self._is_connected = is_connected
        self._inboxes = inboxes
        self._metrics = metrics
        self._changed = asyncio.Event()
        self.is_draining = False

    def on_message(self, _: str) -> None:
        self._changed.set()

    def on_gap(self) -> None:
        self._changed.set()

    def drain(self) -> None:
        self.is_draining = True
        self._changed.set()

    async def lease(self, limit: int, wait_seconds: float) -> list[Delivery]:
        """Lease up to `limit` deliveries, and wait while there are none. Raises StoreUnavailable."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_seconds
        while self._is_connected():
            self._changed.clear()
            deliveries, next_in_seconds = await self._inboxes.lease(self._agent_id, limit)
            remaining = deadline - loop.time()
            if deliveries or remaining <= 0 or self.is_draining:
                self._measure(deliveries)
                return deliveries
            pause = min(
                remaining, POLL_SECONDS if next_in_seconds is None else max(next_in_seconds, 0.001), POLL_SECONDS
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()
        return []

    async def wait_for_change(self, seconds: float) -> None:
        """Wait until the inbox changes, for at most `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()

    def _measure(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            if delivery.attempt > 1:
                self._metrics.inbox_redeliveries.inc()
            elif delivery.leased_at_ms is not None:
                waited_ms = max(delivery.leased_at_ms - sent_at_of(delivery.message_id), 0)
                self._metrics.inbox_wait_seconds.observe(waited_ms / 1000)


class InboxConsumers:
    """All consumers of this process."""

    def __init__(self, subscriber: Subscriber, keys: Keys, inboxes: Inboxes, metrics: Metrics) -> None:
        self._subscriber = subscriber
        self._keys = keys
        self._inboxes = inboxes
        self._metrics = metrics
        self._consumers: set[InboxConsumer] = set()
        self._is_draining = False

    @asynccontextmanager
    async def consumer_of(self, agent_id: str, is_connected: Callable[[], bool]) -> AsyncIterator[InboxConsumer]:
        """Subscribe a consumer to the changes of an inbox. Raises StoreUnavailable."""
        consumer = InboxConsumer(agent_id, is_connected, self._inboxes, self._metrics)
        consumer.is_draining = self._is_draining
        channel = self._keys.inbox_channel(agent_id)
        self._consumers.add(consumer)
        try:
            await self._subscriber.subscribe(channel, consumer)
            yield consumer
        finally:
            self._subscriber.unsubscribe(channel, consumer)
            self._consumers.discard(consumer)

    def drain(self) -> None:
        """End all waits, because this process stops."""
        self._is_draining = True
        for consumer in self._consumers:
            consumer.drain()
