"""Count sessions whose hash disappeared before they expired: each once, by one of the replicas."""

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

MAX_QUEUED = 300
"""How many lost sessions that requests found are queued. The reconciler finds the others."""

_log = logging.getLogger(__name__)


class LostSessions:
    """Marks lost sessions in Redis, so that each is counted once. `redis` should not be the client of requests."""

    def __init__(self, redis: RedisClient, keys: Keys, events: SessionEvents) -> None:
        self._redis = redis
        self._keys = keys
        self._events = events
        self._queue: set[str] = set()
        self._counting: asyncio.Task[None] | None = None

    def queue(self, session_id: str) -> None:
        """Count a lost session that a request found, in the background. Failures are logged."""
        if len(self._queue) < MAX_QUEUED:
            self._queue.add(session_id)
        if self._counting is None:
            self._counting = asyncio.create_task(self._count_queued(), context=Context())

    async def count(self, session_ids: Sequence[str]) -> None:
        """Count the sessions that are lost and not yet counted. Raises StoreUnavailable and ScriptError."""
        failures = PartialFailure()
        await run_all(self._count_in_shard(group, failures) for group in group_by_shard(session_ids))
        failures.raise_if_any()

    async def _count_in_shard(self, session_ids: Sequence[str], failures: PartialFailure) -> None:
        commands = [scripts.MARK_LOST.command(self._keys.of(session_id), id=session_id) for session_id in session_ids]
        replies: list[Reply] = []
        with failures:
            replies = await self._redis.execute(*commands)
        for session_id, reply in zip(session_ids, replies, strict=False):  # no replies after a failure
            match reply:
                case [b"marked"]:
                    self._events.ended(session_id, "lost")
                case [b"already_marked"] | [b"live"] | [b"expired", *_] | [b"missing"] | [b"unreadable"]:
                    pass
                case _:
                    raise UnexpectedReply(repr(reply))

    async def aclose(self) -> None:
        """Count the sessions that are still queued."""
        if self._counting is not None:
            await asyncio.wait([self._counting])

    async def _count_queued(self) -> None:
        try:
            while self._queue:
                session_ids, self._queue = list(self._queue), set()
                with suppress(StoreUnavailable):  # the client has logged it; the reconciler counts them later
                    await self.count(session_ids)
        except (ScriptError, UnexpectedReply) as error:
            _log.error("a lost session cannot be counted: %s", error)
        except Exception:
            _log.exception("lost sessions cannot be counted; the reconciler counts them later")
        finally:
            self._counting = None
