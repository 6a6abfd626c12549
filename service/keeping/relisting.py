"""Puts sessions that live back into the lookups that lack them, and gives lookups without an end one again."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from service.errors import StoreUnavailable
from service.keeping.delisting import Delisting
from service.lanes.lane import Lane
from service.lanes.outages import Outages, answered
from service.life import scripts
from service.life.keys import Keys, LookupKeys

_NO_END = -1


class Living(NamedTuple):
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


class Relisting:
    """Works over `lane`, which should not be the requests' own."""

    def __init__(self, lane: Lane, keys: Keys, delisting: Delisting, *, lookup_life_ms: int) -> None:
        self._lane = lane
        self._keys = keys
        self._delisting = delisting
        self._lookup_life_ms = lookup_life_ms

    async def relist(self, sessions: Sequence[Living], outages: Outages) -> Relisted:
        """Tell lookups of sessions that they should know; these were just seen to live."""
        lookups = self._lookups_of(sessions)
        known = await self._known(lookups, outages)
        lacking = [
            (lookup, session)
            for lookup in known
            for session, score in zip(lookups[lookup], known[lookup].scores, strict=True)
            if score is None
        ]
        without_end = [lookup for lookup in known if known[lookup].ttl == _NO_END]
        await self._give_end(without_end, outages)
        number = await self._enlist(lacking, outages) if lacking else 0
        return Relisted(number, without_end)

    def _lookups_of(self, sessions: Sequence[Living]) -> dict[str, list[Living]]:
        lookups: defaultdict[str, list[Living]] = defaultdict(list)
        for session in sessions:
            for lookup in self._keys.lookups(session.agent_id, session.user_id):
                lookups[lookup].append(session)
        return lookups

    async def _known(self, lookups: Mapping[str, Sequence[Living]], outages: Outages) -> dict[str, Known]:
        """By lookup, of those whose server answers."""
        scores = [("ZMSCORE", lookup, *[session.id for session in sessions]) for lookup, sessions in lookups.items()]
        ttls = [("PTTL", lookup) for lookup in lookups]
        replies = await answered(self._lane.ask, [*scores, *ttls], outages)
        known = zip(lookups, map(Known, replies, replies[len(scores) :]), strict=True)
        return {lookup: found for lookup, found in known if None not in found}

    async def _give_end(self, lookups: Sequence[str], outages: Outages) -> None:
        """As far ahead as after a creation, which is twice a life: it harms nothing that they list."""
        commands = [("PEXPIRE", lookup, 2 * self._lookup_life_ms, "NX") for lookup in lookups]
        await answered(self._lane.change, commands, outages)

    async def _enlist(self, lacking: Sequence[tuple[str, Living]], outages: Outages) -> int:
        """Put them back, then look again whether the sessions live: they lie on other servers than their lookups.

        A deletion and a revocation first end a session, and then take its id out of the lookups; a sweep first sees
        that it has ended. Where that came before the second look here, the look sees it too, and the entry is taken
        out; else what they take out of the lookups they take out after the entry was put there. What cannot be looked
        at now stays suspect. Says how many were put back.
        """
        commands = [self._enlisting(lookup, session) for lookup, session in lacking]
        try:
            replies = await answered(self._lane.change, commands, outages)
        finally:  # whatever became of it: what was not answered may have been done
            self._delisting.have_lived((lookup, session.id) for lookup, session in lacking)
        with suppress(StoreUnavailable):  # it is asked again
            await self._delisting.round()
        return len(replies) - replies.count(None)

    def _enlisting(self, lookup: str, session: Living) -> scripts.Command:
        return scripts.ENLIST.command(
            LookupKeys(lookup), id=session.id, lookup_life_ms=self._lookup_life_ms, created_at=session.created_at
        )
