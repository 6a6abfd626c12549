"""What a session's user and agent know it by: it is put there before it lives, and taken out once it has ended."""

import logging

from service.errors import StoreUnavailable
from service.lanes.lane import Lane
from service.life import scripts
from service.life.keys import Keys, LookupKeys
from service.life.lifecycle import Lifecycle
from service.life.sessions import Session

_log = logging.getLogger(__name__)


class Lookups:
    """Those of all users and agents; an id stays `life_ms` at least."""

    def __init__(self, lane: Lane, keys: Keys, lifecycle: Lifecycle, *, life_ms: int) -> None:
        self._lane = lane
        self._keys = keys
        self._lifecycle = lifecycle
        self._life_ms = life_ms

    def enlisting(self, lookup: str, session_id: str, created_at: bytes = b"") -> scripts.Command:
        """What puts an id into a lookup; without the time of its creation, by now."""
        return scripts.ENLIST.command(
            LookupKeys(lookup), id=session_id, lookup_life_ms=self._life_ms, created_at=created_at
        )

    async def prolong(self, session: Session) -> None:
        """Let its lookups last as long as the session may now: they may be of a replica with tighter settings."""
        lookups = self._keys.lookups(session.agent_id, session.user_id)
        try:
            await self._lane.change(
                *[self.enlisting(lookup, session.id, session.stored.created_at) for lookup in lookups]
            )
        except StoreUnavailable as error:
            _log.info("the lookups of a session may end before it does, until they are reconciled: %s", error.why)

    async def delist(self, session_id: str, agent_id: str, user_id: str) -> None:
        """Take an ended session out of its lookups. Left behind it does little harm, so trouble is not passed on."""
        try:
            await self._lane.change(
                ("ZREM", self._keys.user(user_id), session_id), ("ZREM", self._keys.agent(agent_id), session_id)
            )
        except StoreUnavailable as error:
            self._lifecycle.left_behind(session_id, agent_id, user_id, error.why)
