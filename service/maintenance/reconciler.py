"""Compare shards with owner indexes one after the other: restore entries, count lost sessions and keys without a TTL.

Such differences remain after a killed process, a failed server or manual changes. Every replica reconciles.
"""

import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

from service.maintenance.index_repair import IndexedSession, IndexRepair
from service.maintenance.lost_sessions import LostSessions
from service.observability.metrics import Metrics
from service.redis_client.client import PartialFailure, RedisClient, query_readable
from service.redis_client.errors import ScriptError, UnexpectedReply
from service.redis_client.scripts import Command
from service.sessions.index_scan import decode_id
from service.sessions.keys import SHARDS, Keys
from service.sessions.listing import ignore_unreadable
from service.sessions.session import decode_owner
from service.timestamps import ms_from_time_reply

PAGE_SIZE = 100
"""About how many sessions one round trip reads. Redis takes this number as a hint."""

_NO_TTL = -1
_UNREADABLE = (b"", b"", b"", b"")

_log = logging.getLogger(__name__)


class ShardPage(NamedTuple):
    """Sessions of a shard by state, and keys without a TTL."""

    live: list[IndexedSession]
    missing: list[str]
    without_ttl: list[str]


class Reconciler:
    """Reconciles the shards in turn, from a random one. `redis` should not be the client that serves requests."""

    def __init__(
        self, redis: RedisClient, keys: Keys, index_repair: IndexRepair, lost_sessions: LostSessions, metrics: Metrics
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._index_repair = index_repair
        self._lost_sessions = lost_sessions
        self._gauge = metrics.keys_without_end
        self._next_shard = random.randrange(len(SHARDS))
        self._without_ttl: dict[str, int] = {}
        self.on_unreadable: Callable[[str], None] = ignore_unreadable
        """Called with each id whose record or index entry is unreadable. They are skipped."""

    async def reconcile_next_shard(self) -> None:
        """Reconcile one shard. Raises StoreUnavailable; the next call continues with the next shard."""
        shard = SHARDS[self._next_shard % len(SHARDS)]
        self._next_shard = (self._next_shard + 1) % len(SHARDS)
        failures = PartialFailure()
        try:
            await self._reconcile(shard, failures)
        except (ScriptError, UnexpectedReply, ValueError) as error:  # an index of this shard was changed manually
            _log.error("a shard cannot be reconciled: %s", error)
        failures.raise_if_any()

    async def _reconcile(self, shard: str, failures: PartialFailure) -> None:
        without_ttl: set[str] = set()
        restored = 0
        async for session_ids in self._pages(shard):
            page = await self._read(session_ids)
            result = await self._index_repair.repair(page.live, failures)
            if page.missing:
                await self._lost_sessions.count(page.missing)
            restored += result.restored
            without_ttl.update(page.without_ttl, result.without_ttl)
        if restored:
            _log.info("missing entries of owner indexes were restored: %d", restored)
        if not failures:
            self._report_keys_without_ttl(shard, len(without_ttl))

    async def _pages(self, shard: str) -> AsyncIterator[list[str]]:
        """Yield the ids of the shard. Ids that stay in it during the scan are returned at least once."""
        cursor, created = None, self._keys.created(shard)
        while cursor != 0:
            ((next_cursor, entries),) = await self._redis.query(("ZSCAN", created, cursor or 0, "COUNT", PAGE_SIZE))
            cursor = int(next_cursor)
            if entries:
                yield [*filter(self._is_readable, _ids_in(entries))]

    async def _read(self, session_ids: Sequence[str]) -> ShardPage:
        commands = [command for session_id in session_ids for command in self._read_commands(session_id)]
        *replies, time = await query_readable(self._redis, [*commands, ("TIME",)])
        now_ms = ms_from_time_reply(time)
        page = ShardPage([], [], [])
        sessions = zip(session_ids, replies[::3], replies[1::3], replies[2::3], strict=True)
        for session_id, fields, session_ttl, tombstone_ttl in sessions:
            if session_ttl == _NO_TTL:
                page.without_ttl.append(self._keys.session(session_id))
            if tombstone_ttl == _NO_TTL:
                page.without_ttl.append(self._keys.tombstone(session_id))
            agent_id, user_id, created_at, expires_at = fields or _UNREADABLE
            if expires_at is None:
                page.missing.append(session_id)
            elif None in (agent_id, user_id, created_at) or not (created_at.isdigit() and expires_at.isdigit()):
                self.on_unreadable(session_id)
            elif int(expires_at) > now_ms:
                page.live.append(IndexedSession(session_id, decode_owner(agent_id), decode_owner(user_id), created_at))
        return page

    def _is_readable(self, session_id: str) -> bool:
        is_readable = session_id.isprintable()
        if not is_readable:
            self.on_unreadable(session_id)
        return is_readable

    def _read_commands(self, session_id: str) -> list[Command]:
        session, tombstone = self._keys.session(session_id), self._keys.tombstone(session_id)
        fields = ("agentId", "userId", "createdAt", "expiresAt")
        return [("HMGET", session, *fields), ("PTTL", session), ("PTTL", tombstone)]

    def _report_keys_without_ttl(self, shard: str, number: int) -> None:
        before = sum(self._without_ttl.values())
        self._without_ttl[shard] = number
        now = sum(self._without_ttl.values())
        self._gauge.set(now)
        if now and not before:
            _log.warning(
                "keys in Redis have no TTL, for example after PERSIST or a RESTORE without a TTL, and use memory for "
                "too long; sessions_keys_without_end counts them"
            )


def _ids_in(entries: Sequence[Any]) -> list[str]:
    """The ids of a ZSCAN reply: ids and scores alternate. redis-py's own client has paired them already."""
    ids = [entry[0] for entry in entries] if isinstance(entries[0], tuple | list) else entries[::2]
    return [decode_id(session_id) for session_id in ids]
