"""Owner indexes: the session ids of each user and each agent.

An id is added before its session is created, and removed after the session has ended.
"""

import logging
from collections.abc import Mapping, Sequence

from service.errors import StoreUnavailable
from service.redis_client.client import PartialFailure, RedisClient, replies_or_none
from service.redis_client.scripts import Command
from service.sessions import scripts
from service.sessions.events import SessionEvents
from service.sessions.index_scan import encode_id
from service.sessions.keys import Keys, OwnerIndexKeys
from service.sessions.session import Session

_log = logging.getLogger(__name__)


class OwnerIndex:
    """Changes the owner indexes of all users and agents. Ids stay for at least `lifetime_ms`."""

    def __init__(self, client: RedisClient, keys: Keys, events: SessionEvents, *, lifetime_ms: int) -> None:
        self._client = client
        self._keys = keys
        self._events = events
        self._lifetime_ms = lifetime_ms

    def add_command(self, owner_index: str, session_id: str, created_at: bytes = b"") -> Command:
        """Build the command that adds an id. Without `created_at`, the session is about to be created."""
        return scripts.ADD_TO_INDEX.command(
            OwnerIndexKeys(owner_index), id=session_id, owner_index_lifetime_ms=self._lifetime_ms, created_at=created_at
        )

    async def extend_lifetime(self, session: Session) -> None:
        """Extend the TTL of a session's indexes to its maximum duration. Replicas may have shorter settings."""
        owner_indexes = self._keys.owner_indexes(session.agent_id, session.user_id)
        try:
            await self._client.execute(
                *[self.add_command(owner_index, session.id, session.stored.created_at) for owner_index in owner_indexes]
            )
        except StoreUnavailable as error:
            _log.info("the owner indexes of a session may expire before it until they are repaired: %s", error.cause)

    async def lower_known_expiry(self, session: Session) -> None:
        """With caps, record an expiry that moved closer, so that the session stops counting in time."""
        if not self._keys.capped:
            return
        owner_indexes = self._keys.owner_indexes(session.agent_id, session.user_id)
        ends = [self._keys.capped_index(owner_index).ends for owner_index in owner_indexes]
        try:
            await self._client.execute(*[("ZADD", key, "XX", "LT", session.expires_at_ms, session.id) for key in ends])
        except StoreUnavailable as error:
            _log.info("a session may count toward a cap after its expiry until it is swept: %s", error.cause)

    async def remove(self, session_id: str, agent_id: str, user_id: str) -> None:
        """Remove an ended session. A failure is reported as an event, because a leftover entry does little harm."""
        try:
            owner_indexes = self._keys.owner_indexes(agent_id, user_id)
            keys = [key for owner_index in owner_indexes for key in self._keys.keys_with_ids(owner_index)]
            await self._client.execute(*[("ZREM", key, session_id) for key in keys])
        except StoreUnavailable as error:
            self._events.index_entry_left(session_id, agent_id, user_id, error.cause)


async def remove_from_owner_indexes(
    client: RedisClient, keys: Keys, ids_by_index: Mapping[str, Sequence[str]], failures: PartialFailure
) -> set[str]:
    """Remove ids of ended sessions, and return those that may still be in an index."""
    removals = [
        (key, session_ids)
        for owner_index, session_ids in ids_by_index.items()
        for key in keys.keys_with_ids(owner_index)
    ]
    commands: list[Command] = [("ZREM", key, *map(encode_id, session_ids)) for key, session_ids in removals]
    replies = await replies_or_none(client.execute, commands, failures)
    failed = [session_ids for (_, session_ids), reply in zip(removals, replies, strict=True) if reply is None]
    return {session_id for session_ids in failed for session_id in session_ids}
