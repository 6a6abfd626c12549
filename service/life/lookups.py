"""What a session's user and agent know it by: it is put there before it lives, and taken out once it has ended."""

import logging
from collections.abc import Mapping, Sequence

from service.errors import StoreUnavailable
from service.lanes.lane import Lane
from service.lanes.outages import Outages, answered
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

    async def tell_end(self, session: Session) -> None:
        """Where there are caps, let what lies beside its lookups know of an end that may have come nearer."""
        if not self._keys.capped:
            return
        ends = [self._keys.beside(lookup).ends for lookup in self._keys.lookups(session.agent_id, session.user_id)]
        try:
            await self._lane.change(*[("ZADD", key, "XX", "LT", session.expires_at_ms, session.id) for key in ends])
        except StoreUnavailable as error:
            _log.info("a session may be counted for seconds after its end, until it is swept: %s", error.why)

    async def delist(self, session_id: str, agent_id: str, user_id: str) -> None:
        """Take an ended session out of its lookups. Left behind it does little harm, so trouble is not passed on."""
        try:
            lookups = self._keys.lookups(agent_id, user_id)
            held_by = [key for lookup in lookups for key in self._keys.holding(lookup)]
            await self._lane.change(*[("ZREM", key, session_id) for key in held_by])
        except StoreUnavailable as error:
            self._lifecycle.left_behind(session_id, agent_id, user_id, error.why)


async def take_out(lane: Lane, keys: Keys, leaving: Mapping[str, Sequence[str]], outages: Outages) -> set[str]:
    """Take ids of what has ended out of lookups; those of which it is not known whether they have left."""
    parts = [(key, session_ids) for lookup, session_ids in leaving.items() for key in keys.holding(lookup)]
    replies = await answered(lane.change, [("ZREM", key, *session_ids) for key, session_ids in parts], outages)
    undone = [session_ids for (_, session_ids), reply in zip(parts, replies, strict=True) if reply is None]
    return {session_id for session_ids in undone for session_id in session_ids}
