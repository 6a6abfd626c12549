"""Ending all sessions of a user, of an agent, or between the two: also those whose creation is under way.

A creation puts its id into both lookups, and brings the session to life last. So an id in a lookup without a session is
of one that has ended, or of one that is on its way: a mark in its place refuses that.

Between a user and an agent the shorter of their lookups is walked, and only what the other holds too is asked for. What
the other lacks at that moment is of others or has ended; or its creation has come to one lookup and not yet to the
other: that one is listed by both after the call began, and is left alone like any other.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from service.lanes.lane import Lane, Reply, UnknownAnswer
from service.lanes.outages import Outages, all_of, by_shard
from service.life import scripts
from service.life.keys import MARK_LIFE_MS, Keys
from service.life.lifecycle import Lifecycle
from service.life.lookups import take_out
from service.listing.indexes import BEGINNING, Entry, Stretch, entries_of, last_of

MAX_REVOKED = 1000
"""How many sessions one call ends at most."""

MAX_EXAMINED = 50_000
"""How many entries of a lookup one call looks at, at most."""

_NO_MARK = 0
_PAGE = 1000
_BATCH = 100


class Whose(NamedTuple):
    """Whose sessions are to be ended; at least one is given, and None is any."""

    agent_id: str | None
    user_id: str | None

    @property
    def lookups(self) -> int:
        """How many lookups list them."""
        return 2 - self.count(None)


class Rest(NamedTuple):
    """What is left to be examined: of that one among the lookups what is behind a place, as far as an end."""

    part: int
    place: Entry
    end: Entry

    def behind(self, place: Entry) -> "Rest | None":
        return self._replace(place=place) if place.order < self.end.order else None


class Revoked(NamedTuple):
    """How many sessions were ended, and what was left to another call; None where everything was examined."""

    number: int
    rest: Rest | None


class Revocation:
    """Revokes over `lane`, which should not be the requests' own. When it raises, what has ended stays ended."""

    def __init__(self, lane: Lane, keys: Keys, lifecycle: Lifecycle) -> None:
        self._lane = lane
        self._keys = keys
        self._lifecycle = lifecycle

    async def revoke(self, whose: Whose, rest: Rest | None = None) -> Revoked:
        """End what is listed now, or the `rest` that a call left; what is listed after the first call is left alone."""
        revoked = await self._revoke(whose, rest or await self._listed_now(whose))
        self._lifecycle.revoked(*whose, revoked.number, more=revoked.rest is not None)
        return revoked

    async def _listed_now(self, whose: Whose) -> Rest | None:
        lookups = self._keys.lookups(*whose)
        sizes: list[int] = await self._lane.ask(*[("ZCARD", lookup) for lookup in lookups])
        shorter = sizes.index(min(sizes))
        end = await last_of(self._lane, lookups[shorter])
        return None if end is None else Rest(shorter, BEGINNING, end)

    async def _revoke(self, whose: Whose, rest: Rest | None) -> Revoked:
        number, may_examine = 0, MAX_EXAMINED
        while rest is not None and may_examine and number < MAX_REVOKED:
            entries = await self._entries(whose, rest, min(_PAGE, may_examine))
            ended, place = await self._end_some(whose, rest, entries, MAX_REVOKED - number)
            number, may_examine = number + ended, may_examine - len(entries)
            rest = rest.behind(place)
        return Revoked(number, rest)

    async def _entries(self, whose: Whose, rest: Rest, number: int) -> list[Entry]:
        stretch = Stretch(self._keys.lookups(*whose)[rest.part], rest.place, number)
        (entries,) = await entries_of(self._lane, [stretch])
        return [entry for entry in entries if entry.order <= rest.end.order]

    async def _end_some(self, whose: Whose, rest: Rest, entries: Sequence[Entry], most: int) -> tuple[int, Entry]:
        """End up to so many of them; how many were ended, and the place up to which they were dealt with."""
        asked_for = await self._listed_by_all(whose, rest, entries)
        number, come_to = 0, 0
        while come_to < len(asked_for) and number < most:
            batch = asked_for[come_to : come_to + min(_BATCH, most - number)]
            number += await self._end(whose, [entry.id for entry in batch])
            come_to += len(batch)
        if come_to < len(asked_for):
            return number, asked_for[come_to - 1]
        return number, entries[-1] if entries else rest.end

    async def _listed_by_all(self, whose: Whose, rest: Rest, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Those that the other lookup holds too, where there is another."""
        others = [lookup for part, lookup in enumerate(self._keys.lookups(*whose)) if part != rest.part]
        if not others or not entries:
            return entries
        ids = [entry.id for entry in entries]
        (scores,) = await self._lane.ask(*[("ZMSCORE", lookup, *ids) for lookup in others])
        return [entry for entry, score in zip(entries, scores, strict=True) if score is not None]

    async def _end(self, whose: Whose, session_ids: Sequence[str]) -> int:
        """How many were ended. Marks come last: they take memory, and ending does not.

        Where a server is away the others end what they hold, and are heard, before StoreUnavailable is raised.
        """
        outages = Outages()
        answers: dict[str, Reply] = {}
        ended = await self._end_or_mark(whose, session_ids, _NO_MARK, answers, outages)
        missing = [session_id for session_id, answer in answers.items() if answer == [b"missing"]]
        ended += await self._end_or_mark(whose, missing, MARK_LIFE_MS, {}, outages)
        outages.tell()
        return ended

    async def _end_or_mark(
        self, whose: Whose, session_ids: Sequence[str], mark_life_ms: int, answers: dict[str, Reply], outages: Outages
    ) -> int:
        """Put into `answers` what revoke.lua did, by id, where that is known; how many were ended."""
        try:
            await all_of(self._decide(whose, shard, mark_life_ms, answers, outages) for shard in by_shard(session_ids))
        finally:  # what was done has been done, also where a shard was tampered with
            ended = await self._settle(whose, answers)
        return ended

    async def _decide(
        self, whose: Whose, session_ids: Sequence[str], mark_life_ms: int, answers: dict[str, Reply], outages: Outages
    ) -> None:
        """Of one shard: said twice, a session that the first time ended would be missing."""
        commands = [
            scripts.REVOKE.command(
                self._keys.of(session_id),
                id=session_id,
                agent_id=whose.agent_id or "",
                user_id=whose.user_id or "",
                mark_life_ms=mark_life_ms,
            )
            for session_id in session_ids
        ]
        with outages:
            answers.update(zip(session_ids, await self._lane.change(*commands), strict=True))

    async def _settle(self, whose: Whose, answers: Mapping[str, Reply]) -> int:
        """Count the ended and take them and the marked out of the lookups; how many were ended."""
        revoked = {session_id: answer[1:] for session_id, answer in answers.items() if answer[0] == b"revoked"}
        for session_id, (agent_id, user_id) in revoked.items():
            self._lifecycle.ended(session_id, "revoked", agent_id.decode(), user_id.decode())
        leaving = defaultdict[str, list[str]](list)
        for session_id, answer in answers.items():
            for lookup in self._left(whose, answer):
                leaving[lookup].append(session_id)
        still_listed = await take_out(self._lane, self._keys, leaving, Outages())
        for session_id in still_listed & revoked.keys():
            agent_id, user_id = revoked[session_id]
            why = "a server that lists it is away"
            self._lifecycle.left_behind(session_id, agent_id.decode(), user_id.decode(), why)
        return len(revoked)

    def _left(self, whose: Whose, answer: Reply) -> list[str]:
        """The lookups that an id leaves, as far as they are known."""
        match answer:
            case [b"revoked", agent_id, user_id]:
                return self._keys.lookups(agent_id.decode(), user_id.decode())
            case [b"marked"] | [b"expired", _, _]:
                return self._keys.lookups(*whose)
            case [b"other"] | [b"lost"] | [b"missing"]:
                return []
            case _:
                raise UnknownAnswer(repr(answer))
