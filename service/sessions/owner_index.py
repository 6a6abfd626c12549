"""What a session's user and agent know it by: it is put there before it lives, and taken out once it has ended."""

import logging
from collections.abc import Mapping, Sequence

from service.errors import StoreUnavailable
from service.redis_client.client import PartialFailure, RedisClient, replies_or_none
from service.redis_client.scripts import Command
from service.sessions import scripts
from service.sessions.events import SessionEvents
from service.sessions.keys import Keys, OwnerIndexKeys
from service.sessions.session import Session

_log = logging.getLogger(__name__)


class OwnerIndex:
    """Those of all users and agents; an id stays `life_ms` at least."""

    def __init__(self, redis: RedisClient, keys: Keys, events: SessionEvents, *, lifetime_ms: int) -> None:
        self._redis = redis
        self._keys = keys
        self._events = events
        self._life_ms = lifetime_ms

    def add_command(self, owner_index: str, session_id: str, created_at: bytes = b"") -> Command:
        """What puts an id into a lookup; without the time of its creation, by now."""
        return scripts.ADD_TO_INDEX.command(
            OwnerIndexKeys(owner_index), id=session_id, owner_index_lifetime_ms=self._life_ms, created_at=created_at
        )

    async def prolong(self, session: Session) -> None:
        """Let its lookups last as long as the session may now: they may be of a replica with tighter settings."""
        owner_indexes = self._keys.owner_indexes(session.agent_id, session.user_id)
        try:
            await self._redis.execute(
                *[self.add_command(owner_index, session.id, session.stored.created_at) for owner_index in owner_indexes]
            )
        except StoreUnavailable as error:
            _log.info("the lookups of a session may end before it does, until they are reconciled: %s", error.cause)

    async def tell_end(self, session: Session) -> None:
        """Where there are caps, let what lies beside its lookups know of an end that may have come nearer."""
        if not self._keys.capped:
            return
        ends = [
            self._keys.beside(owner_index).ends
            for owner_index in self._keys.owner_indexes(session.agent_id, session.user_id)
        ]
        try:
            await self._redis.execute(*[("ZADD", key, "XX", "LT", session.expires_at_ms, session.id) for key in ends])
        except StoreUnavailable as error:
            _log.info("a session may be counted for seconds after its end, until it is swept: %s", error.cause)

    async def remove(self, session_id: str, agent_id: str, user_id: str) -> None:
        """Take an ended session out of its lookups. Left behind it does little harm, so trouble is not passed on."""
        try:
            owner_indexes = self._keys.owner_indexes(agent_id, user_id)
            held_by = [key for owner_index in owner_indexes for key in self._keys.holding(owner_index)]
            await self._redis.execute(*[("ZREM", key, session_id) for key in held_by])
        except StoreUnavailable as error:
            self._events.left_behind(session_id, agent_id, user_id, error.cause)


async def take_out(
    redis: RedisClient, keys: Keys, leaving: Mapping[str, Sequence[str]], failures: PartialFailure
) -> set[str]:
    """Take ids of what has ended out of lookups; those of which it is not known whether they have left."""
    parts = [(key, session_ids) for owner_index, session_ids in leaving.items() for key in keys.holding(owner_index)]
    replies = await replies_or_none(
        redis.execute, [("ZREM", key, *session_ids) for key, session_ids in parts], failures
    )
    undone = [session_ids for (_, session_ids), reply in zip(parts, replies, strict=True) if reply is None]
    return {session_id for session_ids in undone for session_id in session_ids}
