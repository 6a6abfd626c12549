"""Takes sessions that have ended out of the indexes and lookups. Every replica sweeps; none leads.

An id leaves its lookups first and its shard's indexes last, in one script that looks again whether the session has
ended: a sweeper that dies on the way leaves work to be done again, and two at once do it once.
"""

import logging
import random
import time
from collections.abc import Sequence
from typing import NamedTuple

from redis.asyncio import Redis

from service import scripts
from service.instants import instant_of
from service.keys import SHARDS, Keys
from service.lane import Lane, ScriptFault, UnknownAnswer
from service.lifecycle import Lifecycle
from service.metrics import Metrics

BATCH_PER_SHARD = 100

_PROOF = ("agentId", "userId", "expiresAt")

_log = logging.getLogger(__name__)


class Ended(NamedTuple):
    """A session whose tombstone proves that it has ended, and whose lookups still know it."""

    id: str
    agent_id: str
    user_id: str


class Sweeper:
    """Finds what has ended through `redis` and sweeps it through `lane`: neither is the requests' own."""

    def __init__(self, redis: Redis, lane: Lane, keys: Keys, lifecycle: Lifecycle, metrics: Metrics) -> None:
        self._redis = redis
        self._lane = lane
        self._keys = keys
        self._lifecycle = lifecycle
        self._gauge = metrics.sweeper_lag_seconds
        self.lag_ms = 0
        """How long ago that session ended which had waited longest when the last round began."""
        self.last_look = time.monotonic()
        """When that was, on the monotonic clock in seconds."""

    async def round(self) -> None:
        """Sweep a batch of every shard, the oldest first. Raises what redis-py raises, and StoreUnavailable."""
        now_ms = await self._now_ms()
        due = await self._due(now_ms)
        self._measure(max((now_ms - int(oldest[1]) for oldest, *_ in due), default=0))
        for shard in random.sample(due, len(due)):
            try:
                await self._sweep([session_id.decode() for session_id, _ in shard], now_ms)
            except ScriptFault as error:  # one shard that was tampered with holds up no other
                _log.error("a shard cannot be swept: %s", error)

    def _measure(self, lag_ms: int) -> None:
        self.lag_ms, self.last_look = lag_ms, time.monotonic()
        self._gauge.set(lag_ms / 1000)

    async def _sweep(self, session_ids: Sequence[str], now_ms: int) -> None:
        await self._delist(await self._proven_ended(session_ids, now_ms))
        await self._take_out(session_ids)

    async def _now_ms(self) -> int:
        return instant_of(await self._redis.time())

    async def _due(self, now_ms: int) -> list[list[tuple[bytes, float]]]:
        """For each shard that has any, the ids whose end has come, with its instant."""
        pipeline = self._redis.pipeline(transaction=False)
        for shard in SHARDS:
            pipeline.zrangebyscore(self._keys.expiry(shard), "-inf", now_ms, 0, BATCH_PER_SHARD, withscores=True)
        return [due for due in await pipeline.execute() if due]

    async def _proven_ended(self, session_ids: Sequence[str], now_ms: int) -> list[Ended]:
        tombstones = await self._lane.ask(
            *[("HMGET", self._keys.tombstone(session_id), *_PROOF) for session_id in session_ids]
        )
        return [
            Ended(session_id, agent_id.decode(), user_id.decode())
            for session_id, (agent_id, user_id, expires_at_ms) in zip(session_ids, tombstones, strict=True)
            if agent_id and user_id and int(expires_at_ms) <= now_ms
        ]

    async def _delist(self, sessions: Sequence[Ended]) -> None:
        commands = [
            ("ZREM", lookup, session.id)
            for session in sessions
            for lookup in self._keys.lookups(session.agent_id, session.user_id)
        ]
        if commands:
            await self._lane.change(*commands)

    async def _take_out(self, session_ids: Sequence[str]) -> None:
        commands = [scripts.SWEEP.command(self._keys.of(session_id), id=session_id) for session_id in session_ids]
        for session_id, answer in zip(session_ids, await self._lane.change(*commands), strict=True):
            match answer:
                case [b"swept", reason]:
                    self._lifecycle.ended(session_id, reason.decode())
                case [b"forgotten"]:
                    self._lifecycle.ended(session_id, "unknown")
                case [b"counted"] | [b"missing"] | [b"living"]:
                    pass
                case _:
                    raise UnknownAnswer(repr(answer))
