"""Remove expired sessions from indexes. Every replica sweeps.

A session leaves its owner indexes first and the indexes of its shard last. The last step is a script that checks again
whether the session has expired. A sweep that was interrupted is therefore repeated, and concurrent sweeps count a
session once. If a node of a cluster is down, its part of the work waits and the rest is swept.
"""

import logging
import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from service.observability.metrics import Metrics
from service.redis_client.client import PartialFailure, RedisClient, Reply, query_readable, replies_or_none, run_all
from service.redis_client.errors import UnexpectedReply
from service.redis_client.scripts import Command
from service.sessions import scripts
from service.sessions.events import SessionEvents
from service.sessions.index_scan import Entry, decode_id
from service.sessions.keys import SHARDS, Keys
from service.sessions.owner_index import remove_from_owner_indexes
from service.sessions.session import decode_owner

BATCH_PER_SHARD = 100

_SHARD_GROUPS = (slice(0, 1), slice(1, 16), slice(16, None))
"""A small group first: a server without the script receives its text with each command of the group."""

_CONCURRENT_SHARDS = 32
"""After a failure: a node that is down delays each of its shards, so they are swept at the same time."""

_TOMBSTONE_FIELDS = ("agentId", "userId", "expiresAt")

_log = logging.getLogger(__name__)


class ExpiredSession(NamedTuple):
    """A session whose tombstone shows that it has expired and who its owners are."""

    id: str
    agent_id: str
    user_id: str


class ExpiryKey(NamedTuple):
    """The key of one shard's ids by expiry."""

    expiry: str


class ExpiredBatch(NamedTuple):
    """The ids of a shard that have expired by the clock of its server."""

    shard: str
    ids: Sequence[bytes]
    now_ms: int
    oldest_expiry_ms: float

    @property
    def lag_ms(self) -> int:
        return self.now_ms - int(max(self.oldest_expiry_ms, 0))  # a manual change may have stored -inf


class Sweeper:
    """Sweeps all shards, each by the clock of its own server. `redis` should not be the client of requests."""

    def __init__(
        self, redis: RedisClient, keys: Keys, events: SessionEvents, metrics: Metrics, *, retention_ms: int
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._events = events
        self._retention_ms = retention_ms
        self._faulty_shards: set[str] = set()
        self.lag_ms = 0
        """How long ago the oldest unswept session had expired when the lag was measured."""
        self.lag_measured_at = time.monotonic()
        """When the lag was measured, on the monotonic clock in seconds."""
        self._gauge = metrics.sweeper_lag_seconds
        metrics.before_collecting(self._update_gauge)

    @property
    def lag_seconds(self) -> float:
        """How far the sweeper is behind. The value grows while no sweep runs."""
        return self.lag_ms / 1000 + time.monotonic() - self.lag_measured_at

    async def sweep(self) -> None:
        """Sweep a batch of every shard, oldest sessions first. Raises StoreUnavailable after sweeping the rest."""
        self._update_gauge()
        failures = PartialFailure()
        batches = await self._expired(failures)
        if not failures:
            self.lag_ms = max((batch.lag_ms for batch in batches), default=0)
            self.lag_measured_at = time.monotonic()
            self._update_gauge()
        random.shuffle(batches)
        while batches:
            number = _CONCURRENT_SHARDS if failures else 1
            await run_all(self._sweep_shard(batch, failures) for batch in batches[:number])
            del batches[:number]
        failures.raise_if_any()

    def _update_gauge(self) -> None:
        """Each sweep updates it too, because another worker of this replica may serve the shared metrics."""
        self._gauge.set(self.lag_seconds)

    def _report_fault(self, shard: str, cause: object) -> None:
        """Log the fault once, until the shard is swept again."""
        if shard not in self._faulty_shards:
            self._faulty_shards.add(shard)
            _log.error("a shard cannot be swept: %s", cause)

    async def _sweep_shard(self, batch: ExpiredBatch, failures: PartialFailure) -> None:
        try:
            with failures:
                await self._sweep_batch(batch, failures)
        except Exception as error:  # for example, a key of this shard was changed manually
            self._report_fault(batch.shard, error)
        else:
            self._faulty_shards.discard(batch.shard)

    async def _sweep_batch(self, batch: ExpiredBatch, failures: PartialFailure) -> None:
        entries = [Entry("", decode_id(member)) for member in batch.ids]
        await self._remove_unreadable(batch.shard, [entry for entry in entries if not entry.is_readable])
        session_ids = [entry.id for entry in entries if entry.is_readable]
        sessions = await self._with_tombstone(session_ids, batch.now_ms)
        still_indexed = await self._remove_from_owner_indexes(sessions, failures)
        owners = {session.id: (session.agent_id, session.user_id) for session in sessions}
        await self._remove([session_id for session_id in session_ids if session_id not in still_indexed], owners)

    async def _expired(self, failures: PartialFailure) -> list[ExpiredBatch]:
        """A batch for each shard that has expired sessions and whose server responds."""
        commands = [
            scripts.EXPIRED.command(ExpiryKey(self._keys.expiry(shard)), limit=BATCH_PER_SHARD) for shard in SHARDS
        ]
        replies = [
            reply
            for group in _SHARD_GROUPS
            for reply in await replies_or_none(self._redis.query, commands[group], failures)
        ]
        batches = [self._batch_from(shard, reply) for shard, reply in zip(SHARDS, replies, strict=True)]
        return [batch for batch in batches if batch is not None]

    def _batch_from(self, shard: str, reply: Reply) -> ExpiredBatch | None:
        match reply:
            case None:
                pass
            case [b"found", _, []]:
                self._faulty_shards.discard(shard)
            case [b"found", now_ms, [_, oldest_expiry_ms, *_] as flat]:
                return ExpiredBatch(shard, flat[::2], now_ms, float(oldest_expiry_ms))
            case [b"unreadable", cause]:
                self._report_fault(shard, cause.decode())
            case _:
                raise UnexpectedReply(repr(reply))
        return None

    async def _with_tombstone(self, session_ids: Sequence[str], now_ms: int) -> list[ExpiredSession]:
        tombstones = await query_readable(
            self._redis, [("HMGET", self._keys.tombstone(session_id), *_TOMBSTONE_FIELDS) for session_id in session_ids]
        )
        return [
            ExpiredSession(session_id, decode_owner(agent_id), decode_owner(user_id))
            for session_id, fields in zip(session_ids, tombstones, strict=True)
            for agent_id, user_id, expires_at_ms in [fields or (None, None, None)]
            if agent_id and user_id and expires_at_ms and expires_at_ms.isdigit() and int(expires_at_ms) <= now_ms
        ]

    async def _remove_unreadable(self, shard: str, entries: Sequence[Entry]) -> None:
        """Remove entries that are not text. No session has such an id."""
        for entry in entries:
            self._events.record_unreadable(entry.id)
        indexes = (self._keys.expiry(shard), self._keys.warning(shard), self._keys.created(shard))
        members = [entry.member for entry in entries]
        if members:
            commands: list[Command] = [("ZREM", index, *members) for index in indexes]
            await self._redis.execute(*commands)

    async def _remove_from_owner_indexes(
        self, sessions: Sequence[ExpiredSession], failures: PartialFailure
    ) -> set[str]:
        """Return the ids of sessions that may still be in an owner index."""
        removals: defaultdict[str, list[str]] = defaultdict(list)
        for session in sessions:
            for owner_index in self._keys.owner_indexes(session.agent_id, session.user_id):
                removals[owner_index].append(session.id)
        return await remove_from_owner_indexes(self._redis, self._keys, removals, failures)

    async def _remove(self, session_ids: Sequence[str], owners: Mapping[str, tuple[str, str]]) -> None:
        """Remove sessions from the indexes of their shard, and count them."""
        commands = [
            scripts.SWEEP.command(self._keys.of(session_id), id=session_id, retention_ms=self._retention_ms)
            for session_id in session_ids
        ]
        for session_id, reply in zip(session_ids, await self._redis.execute(*commands), strict=True):
            match reply:
                case [b"swept", reason]:
                    self._events.ended(session_id, reason.decode(), *owners.get(session_id, ()))
                case [b"swept_unknown"]:
                    self._events.ended(session_id, "unknown")
                case [b"swept_unreadable"]:
                    self._events.record_unreadable(session_id)
                    self._events.ended(session_id, "unknown")
                case [b"swept_lost"] | [b"missing"] | [b"live"]:
                    pass
                case _:
                    raise UnexpectedReply(repr(reply))
