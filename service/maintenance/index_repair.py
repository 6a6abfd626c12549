"""Puts sessions that live back into the lookups that lack them, and gives lookups without an end one again."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from service.errors import StoreUnavailable
from service.maintenance.index_removal import IndexRemoval
from service.redis_client.client import PartialFailure, RedisClient, replies_or_none
from service.redis_client.scripts import Command
from service.sessions import scripts
from service.sessions.keys import Keys, OwnerIndexKeys

_NO_END = -1


class IndexedSession(NamedTuple):
    """A session that lives, and what its lookups should know of it."""

    id: str
    agent_id: str
    user_id: str
    created_at: bytes


class Known(NamedTuple):
    """What a lookup says of the sessions that it should know, and its TTL."""

    scores: list[float | None]
    ttl: int


class Relisted(NamedTuple):
    """How many entries were put back, and which lookups had no end."""

    number: int
    without_end: list[str]


class IndexRepair:
    """Works over `lane`, which should not be the requests' own."""

    def __init__(
        self, redis: RedisClient, keys: Keys, delisting: IndexRemoval, *, owner_index_lifetime_ms: int
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._delisting = delisting
        self._owner_index_lifetime_ms = owner_index_lifetime_ms

    async def relist(self, sessions: Sequence[IndexedSession], failures: PartialFailure) -> Relisted:
        """Tell lookups of sessions that they should know; these were just seen to live."""
        owner_indexes = self._lookups_of(sessions)
        known = await self._known(owner_indexes, failures)
        lacking = [
            (owner_index, session)
            for owner_index in known
            for session, score in zip(owner_indexes[owner_index], known[owner_index].scores, strict=True)
            if score is None
        ]
        without_end = [owner_index for owner_index in known if known[owner_index].ttl == _NO_END]
        await self._give_end(without_end, failures)
        number = await self._enlist(lacking, failures) if lacking else 0
        return Relisted(number, without_end)

    def _lookups_of(self, sessions: Sequence[IndexedSession]) -> dict[str, list[IndexedSession]]:
        owner_indexes: defaultdict[str, list[IndexedSession]] = defaultdict(list)
        for session in sessions:
            for owner_index in self._keys.owner_indexes(session.agent_id, session.user_id):
                owner_indexes[owner_index].append(session)
        return owner_indexes

    async def _known(
        self, owner_indexes: Mapping[str, Sequence[IndexedSession]], failures: PartialFailure
    ) -> dict[str, Known]:
        """By lookup, of those whose server answers."""
        scores = [
            ("ZMSCORE", owner_index, *[session.id for session in sessions])
            for owner_index, sessions in owner_indexes.items()
        ]
        ttls = [("PTTL", owner_index) for owner_index in owner_indexes]
        replies = await replies_or_none(self._redis.query, [*scores, *ttls], failures)
        known = zip(owner_indexes, map(Known, replies, replies[len(scores) :]), strict=True)
        return {owner_index: found for owner_index, found in known if None not in found}

    async def _give_end(self, owner_indexes: Sequence[str], failures: PartialFailure) -> None:
        """As far ahead as after a creation, which is twice a life: it harms nothing that they list."""
        commands = [("PEXPIRE", owner_index, 2 * self._owner_index_lifetime_ms, "NX") for owner_index in owner_indexes]
        await replies_or_none(self._redis.execute, commands, failures)

    async def _enlist(self, lacking: Sequence[tuple[str, IndexedSession]], failures: PartialFailure) -> int:
        """Put them back, then look again whether the sessions live: they lie on other servers than their lookups.

        A deletion and a revocation first end a session, and then take its id out of the lookups; a sweep first sees
        that it has ended. Where that came before the second look here, the look sees it too, and the entry is taken
        out; else what they take out of the lookups they take out after the entry was put there. What cannot be looked
        at now stays suspect. Says how many were put back.
        """
        commands = [self._enlisting(owner_index, session) for owner_index, session in lacking]
        try:
            replies = await replies_or_none(self._redis.execute, commands, failures)
        finally:  # whatever became of it: what was not answered may have been done
            self._delisting.have_lived((owner_index, session.id) for owner_index, session in lacking)
        with suppress(StoreUnavailable):  # it is asked again
            await self._delisting.round()
        return len(replies) - replies.count(None)

    def _enlisting(self, owner_index: str, session: IndexedSession) -> Command:
        return scripts.ADD_TO_INDEX.command(
            OwnerIndexKeys(owner_index),
            id=session.id,
            owner_index_lifetime_ms=self._owner_index_lifetime_ms,
            created_at=session.created_at,
        )
