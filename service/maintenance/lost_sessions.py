"""Sessions whose hash is gone before their end: each is counted once, over all replicas, whoever finds it."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from contextvars import Context

from service.errors import StoreUnavailable
from service.redis_client.client import PartialFailure, RedisClient, Reply, run_all
from service.redis_client.errors import ScriptError, UnexpectedReply
from service.sessions import scripts
from service.sessions.events import SessionEvents
from service.sessions.keys import Keys, group_by_shard

MAX_WAITING = 300
"""How many that requests met wait to be counted; more are left to the reconciler."""

_log = logging.getLogger(__name__)


class LostSessions:
    """Marks lost sessions over `lane`, which should not be the requests' own."""

    def __init__(self, redis: RedisClient, keys: Keys, events: SessionEvents) -> None:
        self._redis = redis
        self._keys = keys
        self._events = events
        self._waiting: set[str] = set()
        self._counting: asyncio.Task[None] | None = None

    def met(self, session_id: str) -> None:
        """Count one that a request met, at once, and not in the way of its answer: trouble is nobody's."""
        if len(self._waiting) < MAX_WAITING:
            self._waiting.add(session_id)
        if self._counting is None:
            self._counting = asyncio.create_task(self._count_waiting(), context=Context())

    async def count(self, session_ids: Sequence[str]) -> None:
        """Count those among them that are lost and are not counted yet. Raises StoreUnavailable and ScriptFault."""
        failures = PartialFailure()
        await run_all(self._count(shard, failures) for shard in group_by_shard(session_ids))
        failures.raise_if_any()

    async def _count(self, session_ids: Sequence[str], failures: PartialFailure) -> None:
        """Those of one shard. What was marked and not counted nobody would count any more."""
        commands = [scripts.MARK_LOST.command(self._keys.of(session_id), id=session_id) for session_id in session_ids]
        answers: list[Reply] = []
        with failures:
            answers = await self._redis.execute(*commands)
        for session_id, answer in zip(session_ids, answers, strict=False):  # there are none in an outage
            match answer:
                case [b"marked"]:
                    self._events.ended(session_id, "lost")
                case [b"already_marked"] | [b"live"] | [b"expired", *_] | [b"missing"]:
                    pass
                case _:
                    raise UnexpectedReply(repr(answer))

    async def aclose(self) -> None:
        """Count what waits still."""
        if self._counting is not None:
            await asyncio.wait([self._counting])

    async def _count_waiting(self) -> None:
        try:
            while self._waiting:
                met, self._waiting = list(self._waiting), set()
                with suppress(StoreUnavailable):  # the log has it; the reconciler comes by
                    await self.count(met)
        except (ScriptError, UnexpectedReply) as error:
            _log.error("a lost session cannot be counted: %s", error)
        finally:
            self._counting = None
