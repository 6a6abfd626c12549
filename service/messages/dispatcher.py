"""Move messages from the outboxes of shards to the inboxes of agents, at least once.

The replica that sends a message dispatches it at once. If that replica fails in between, another replica leases the
entry of the outbox after DISPATCH_DELAY_MS. The entry is removed only after the inbox contains the message.
"""

import asyncio
import logging
import random
from collections.abc import Coroutine
from typing import Any

from service.errors import StoreUnavailable
from service.identifiers import parse_uuid
from service.messages.inbox import Inboxes, delivery_member, parse_delivery
from service.redis_client.client import PartialFailure, RedisClient, replies_or_none
from service.redis_client.errors import UnexpectedReply
from service.sessions import scripts
from service.sessions.events import SessionEvents
from service.sessions.keys import SHARDS, Keys, OutboxKeys

DISPATCH_DELAY_MS = 3000
DISPATCH_INTERVAL_SECONDS = 2
BATCH_PER_SHARD = 100

_CONCURRENT_ENTRIES = 32

_log = logging.getLogger(__name__)


class Dispatcher:
    """Dispatches the messages of this replica at once, and periodically those that another replica left."""

    def __init__(self, client: RedisClient, keys: Keys, inboxes: Inboxes, events: SessionEvents) -> None:
        self._client = client
        self._keys = keys
        self._events = events
        self._inboxes = inboxes
        self._tasks: set[asyncio.Task[None]] = set()

    def dispatch_soon(self, session_id: str, entry: str) -> None:
        """Dispatch an entry of the outbox without delaying the caller. A failure leaves it to the periodic run."""
        self._start(self._dispatch(session_id[:2], entry), "a message reaches its agent later")

    def complete_soon(self, agent_id: str, session_id: str, message_id: str) -> None:
        """Complete the delivery of an answered message. After a failure, the next lease finds the answer."""
        completion = self._inboxes.complete(agent_id, [delivery_member(session_id, message_id)])
        self._start(completion, "an answered message stays in its inbox until its lease ends")

    async def aclose(self) -> None:
        """Wait for dispatches in progress. Each ends within the store's timeout."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, work: Coroutine[Any, Any, object], failure: str) -> None:
        async def run() -> None:
            try:
                await work
            except StoreUnavailable as error:
                _log.info("%s: %s", failure, error.cause)
            except Exception:
                _log.exception("%s", failure)

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def dispatch_left_entries(self) -> None:
        """Dispatch entries of all outboxes that are overdue. Raises StoreUnavailable after dispatching the rest."""
        failures = PartialFailure()
        shards = random.sample(SHARDS, len(SHARDS))
        commands = [
            scripts.LEASE_OUTBOX.command(
                OutboxKeys(self._keys.outbox(shard)), limit=BATCH_PER_SHARD, lease_ms=DISPATCH_DELAY_MS
            )
            for shard in shards
        ]
        replies = await replies_or_none(self._client.execute, commands, failures)
        for shard, reply in zip(shards, replies, strict=True):
            match reply:
                case None | [b"leased", []]:
                    pass
                case [b"leased", entries]:
                    await self._dispatch_batch(shard, entries, failures)
                case _:
                    raise UnexpectedReply(repr(reply))
        failures.raise_if_any()

    async def _dispatch_batch(self, shard: str, entries: list[bytes], failures: PartialFailure) -> None:
        async def dispatch(entry: bytes) -> None:
            with failures:
                if _is_readable(entry):
                    await self._dispatch(shard, entry.decode())
                else:
                    self._events.record_unreadable(repr(entry))
                    await self._client.execute(("ZREM", self._keys.outbox(shard), entry))

        for start in range(0, len(entries), _CONCURRENT_ENTRIES):
            await asyncio.gather(*map(dispatch, entries[start : start + _CONCURRENT_ENTRIES]))

    async def _dispatch(self, shard: str, entry: str) -> None:
        agent_id, _, delivery = entry.partition(" ")
        session_id, message_id, is_cancel = parse_delivery(delivery)
        await self._inboxes.add(agent_id, session_id, message_id, is_cancel=is_cancel)
        await self._client.execute(("ZREM", self._keys.outbox(shard), entry))


def _is_readable(entry: bytes) -> bool:
    """Whether the service could have added the entry to an outbox."""
    try:
        agent_id, _, delivery = entry.decode().partition(" ")
        parse_delivery(delivery)
        return parse_uuid(agent_id) == agent_id
    except ValueError:
        return False
