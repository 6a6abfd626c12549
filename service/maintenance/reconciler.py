"""Looks over one shard after the other for what a killed process, a failing server or a hand left wrong.

What a shard knows and a lookup lacks is put back. Sessions that were lost are counted once, over all replicas. Keys
without an end are counted, and of them lookups are given one. Every replica reconciles; none leads.
"""

import logging
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from service.maintenance.index_repair import IndexedSession, IndexRepair
from service.maintenance.lost_sessions import LostSessions
from service.observability.metrics import Metrics
from service.redis_client.client import PartialFailure, RedisClient
from service.redis_client.errors import ScriptError, UnexpectedReply
from service.redis_client.scripts import Command
from service.sessions.keys import SHARDS, Keys
from service.timestamps import ms_from_time_reply

PAGE = 100
"""About how many sessions are looked at in one round trip: Redis takes this number as a hint."""

_NO_END = -1

_log = logging.getLogger(__name__)


class ShardPage(NamedTuple):
    """Some of a shard's sessions as they were found."""

    living: list[IndexedSession]
    gone: list[str]
    without_end: list[str]


class Reconciler:
    """Goes round the shards, from a random one on, through a lane that is not the requests' own."""

    def __init__(
        self, redis: RedisClient, keys: Keys, relisting: IndexRepair, losses: LostSessions, metrics: Metrics
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._relisting = relisting
        self._losses = losses
        self._gauge = metrics.keys_without_end
        self._place = random.randrange(len(SHARDS))
        self._without_end: dict[str, int] = {}

    async def round(self) -> None:
        """Look over the next shard. Raises StoreUnavailable; it is the turn of the shard behind it all the same."""
        shard = SHARDS[self._place % len(SHARDS)]
        self._place = (self._place + 1) % len(SHARDS)
        failures = PartialFailure()
        try:
            await self._look_over(shard, failures)
        except (ScriptError, UnexpectedReply, ValueError) as error:  # one that was tampered with holds up no other
            _log.error("a shard cannot be reconciled: %s", error)
        failures.raise_if_any()

    async def _look_over(self, shard: str, failures: PartialFailure) -> None:
        without_end: set[str] = set()
        put_back = 0
        async for session_ids in self._pages(shard):
            page = await self._read(session_ids)
            relisted = await self._relisting.relist(page.living, failures)
            if page.gone:
                await self._losses.count(page.gone)
            put_back += relisted.number
            without_end.update(page.without_end, relisted.without_end)
        if put_back:
            _log.info("entries that lookups lacked were put back: %d", put_back)
        if not failures:
            self._tell_of_keys_without_end(shard, len(without_end))

    async def _pages(self, shard: str) -> AsyncIterator[list[str]]:
        """The shard's ids; each that stays throughout at least once, however many were created in one millisecond."""
        cursor, created = None, self._keys.created(shard)
        while cursor != 0:
            ((place, found),) = await self._redis.query(("ZSCAN", created, cursor or 0, "COUNT", PAGE))
            cursor = int(place)
            if found:
                yield _ids_in(found)

    async def _read(self, session_ids: Sequence[str]) -> ShardPage:
        commands = [command for session_id in session_ids for command in self._looks_at(session_id)]
        *replies, time = await self._redis.query(*commands, ("TIME",))  # all of one shard: of its server
        now_ms = ms_from_time_reply(time)
        page = ShardPage([], [], [])
        looks = zip(session_ids, replies[::3], replies[1::3], replies[2::3], strict=True)
        for session_id, fields, session_ttl, tombstone_ttl in looks:
            if session_ttl == _NO_END:
                page.without_end.append(self._keys.session(session_id))
            if tombstone_ttl == _NO_END:
                page.without_end.append(self._keys.tombstone(session_id))
            agent_id, user_id, created_at, expires_at = fields
            if expires_at is None:
                page.gone.append(session_id)
            elif int(expires_at) > now_ms and None not in fields:
                page.living.append(IndexedSession(session_id, agent_id.decode(), user_id.decode(), created_at))
        return page

    def _looks_at(self, session_id: str) -> list[Command]:
        session, tombstone = self._keys.session(session_id), self._keys.tombstone(session_id)
        fields = ("agentId", "userId", "createdAt", "expiresAt")
        return [("HMGET", session, *fields), ("PTTL", session), ("PTTL", tombstone)]

    def _tell_of_keys_without_end(self, shard: str, number: int) -> None:
        before = sum(self._without_end.values())
        self._without_end[shard] = number
        now = sum(self._without_end.values())
        self._gauge.set(now)
        if now and not before:
            _log.warning(
                "keys in Redis that should have a TTL have none, as after PERSIST or a RESTORE without one: they take "
                "memory for longer than they should; sessions_keys_without_end counts them"
            )


def _ids_in(entries: Sequence[Any]) -> list[str]:
    """Of ids and scores in turn, as ZSCAN gives them; redis-py has put them into pairs."""
    ids = [entry[0] for entry in entries] if isinstance(entries[0], tuple | list) else entries[::2]
    return [session_id.decode() for session_id in ids]
