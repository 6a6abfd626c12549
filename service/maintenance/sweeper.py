"""Takes sessions that have ended out of the indexes and lookups. Every replica sweeps; none leads.

An id leaves its lookups first and its shard's indexes last, in one script that looks again whether the session has
ended: a sweeper that dies on the way leaves work to be done again, and two at once do it once. So where a server of
several is away, what lies there or is listed there stays until it is back, and everything else is swept.
"""

import logging
import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from service.observability.metrics import Metrics
from service.redis_client.client import PartialFailure, RedisClient, Reply, replies_or_none, run_all
from service.redis_client.errors import ScriptError, UnexpectedReply
from service.sessions import scripts
from service.sessions.events import SessionEvents
from service.sessions.keys import SHARDS, Keys
from service.sessions.owner_index import remove_from_owner_indexes

BATCH_PER_SHARD = 100

_PORTIONS = (slice(0, 1), slice(1, 16), slice(16, None))
"""In which the shards are asked: a server that does not know the script yet is sent its text for each of them."""

_SHARDS_AT_ONCE = 32
"""While a server is away: each shard may wait for it, and they wait together."""

_PROOF = ("agentId", "userId", "expiresAt")

_log = logging.getLogger(__name__)


class Ended(NamedTuple):
    """A session whose tombstone proves that it has ended, and whose lookups still know it."""

    id: str
    agent_id: str
    user_id: str


class Expiry(NamedTuple):
    """The key of one shard's ids by their ends."""

    expiry: str


class Due(NamedTuple):
    """The ids in a shard whose end has come, as they stand there, and when its server was asked, by its own clock."""

    shard: str
    ids: Sequence[bytes]
    now_ms: int
    oldest_end_ms: float

    @property
    def lag_ms(self) -> int:
        return self.now_ms - int(max(self.oldest_end_ms, 0))  # a hand may have put -inf there


class Sweeper:
    """Sweeps over `lane`, which should not be the requests' own. Each shard is judged by its own server's clock."""

    def __init__(
        self, redis: RedisClient, keys: Keys, events: SessionEvents, metrics: Metrics, *, retention_ms: int
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._events = events
        self._retention_ms = retention_ms
        self._faulty: set[str] = set()
        self.lag_ms = 0
        """How long ago that session ended which had waited longest when the last round began."""
        self.last_look = time.monotonic()
        """When that was, on the monotonic clock in seconds."""
        self._gauge = metrics.sweeper_lag_seconds
        metrics.before_collecting(self._tell_lag)

    @property
    def lag_seconds(self) -> float:
        """How far behind it is by now: one that does not come to look is as far behind as one that cannot keep up."""
        return self.lag_ms / 1000 + time.monotonic() - self.last_look

    async def round(self) -> None:
        """Sweep a batch of every shard, the oldest first. Raises StoreUnavailable; what can be swept is swept then."""
        self._tell_lag()
        failures = PartialFailure()
        due = await self._due(failures)
        if not failures:
            self.lag_ms, self.last_look = max((shard.lag_ms for shard in due), default=0), time.monotonic()
            self._tell_lag()
        random.shuffle(due)
        while due:
            number = _SHARDS_AT_ONCE if failures else 1
            await run_all(self._sweep(shard, failures) for shard in due[:number])
            del due[:number]
        failures.raise_if_any()

    def _tell_lag(self) -> None:
        """Also by the round: of the workers that share metrics it is another, as a rule, that is asked for them."""
        self._gauge.set(self.lag_seconds)

    def _is_faulty(self, shard: str, why: object) -> None:
        """Told once an episode."""
        if shard not in self._faulty:
            self._faulty.add(shard)
            _log.error("a shard cannot be swept: %s", why)

    async def _sweep(self, due: Due, failures: PartialFailure) -> None:
        try:
            with failures:
                await self._sweep_batch(due, failures)
        except (ScriptError, UnexpectedReply, ValueError) as error:  # one that was tampered with holds up no other
            self._is_faulty(due.shard, error)
        else:
            self._faulty.discard(due.shard)

    async def _sweep_batch(self, due: Due, failures: PartialFailure) -> None:
        session_ids = [session_id.decode() for session_id in due.ids]
        ended = await self._proven_ended(session_ids, due.now_ms)
        still_listed = await self._delist(ended, failures)
        owners = {session.id: (session.agent_id, session.user_id) for session in ended}
        await self._take_out([session_id for session_id in session_ids if session_id not in still_listed], owners)

    async def _due(self, failures: PartialFailure) -> list[Due]:
        """What is to be swept, of each shard that has any and whose server answers."""
        commands = [
            scripts.EXPIRED.command(Expiry(self._keys.expiry(shard)), limit=BATCH_PER_SHARD) for shard in SHARDS
        ]
        answers = [
            reply
            for portion in _PORTIONS
            for reply in await replies_or_none(self._redis.query, commands[portion], failures)
        ]
        found = [self._due_of(shard, answer) for shard, answer in zip(SHARDS, answers, strict=True)]
        return [due for due in found if due is not None]

    def _due_of(self, shard: str, answer: Reply) -> Due | None:
        match answer:
            case None:
                pass
            case [b"found", _, []]:
                self._faulty.discard(shard)
            case [b"found", now_ms, [_, oldest_end_ms, *_] as flat]:
                return Due(shard, flat[::2], now_ms, float(oldest_end_ms))
            case [b"unreadable", why]:
                self._is_faulty(shard, why.decode())
            case _:
                raise UnexpectedReply(repr(answer))
        return None

    async def _proven_ended(self, session_ids: Sequence[str], now_ms: int) -> list[Ended]:
        tombstones = await self._redis.query(
            *[("HMGET", self._keys.tombstone(session_id), *_PROOF) for session_id in session_ids]
        )
        return [
            Ended(session_id, agent_id.decode(), user_id.decode())
            for session_id, (agent_id, user_id, expires_at_ms) in zip(session_ids, tombstones, strict=True)
            if agent_id and user_id and int(expires_at_ms) <= now_ms
        ]

    async def _delist(self, sessions: Sequence[Ended], failures: PartialFailure) -> set[str]:
        """Take them out of their lookups; the ids of those for which that could not be done everywhere."""
        leaving: defaultdict[str, list[str]] = defaultdict(list)
        for session in sessions:
            for owner_index in self._keys.owner_indexes(session.agent_id, session.user_id):
                leaving[owner_index].append(session.id)
        return await remove_from_owner_indexes(self._redis, self._keys, leaving, failures)

    async def _take_out(self, session_ids: Sequence[str], owners: Mapping[str, tuple[str, str]]) -> None:
        commands = [
            scripts.SWEEP.command(self._keys.of(session_id), id=session_id, retention_ms=self._retention_ms)
            for session_id in session_ids
        ]
        for session_id, answer in zip(session_ids, await self._redis.execute(*commands), strict=True):
            match answer:
                case [b"swept", reason]:
                    self._events.ended(session_id, reason.decode(), *owners.get(session_id, ()))
                case [b"swept_unknown"]:
                    self._events.ended(session_id, "unknown")
                case [b"swept_lost"] | [b"missing"] | [b"live"]:
                    pass
                case _:
                    raise UnexpectedReply(repr(answer))
