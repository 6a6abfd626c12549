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

from service.redis_client.client import PartialFailure, RedisClient, Reply, run_all
from service.redis_client.errors import UnexpectedReply
from service.sessions import scripts
from service.sessions.events import SessionEvents
from service.sessions.index_scan import BEGINNING, Entry, Stretch, entries_of, last_of
from service.sessions.keys import REVOCATION_MARKER_MS, Keys, group_by_shard
from service.sessions.owner_index import take_out

MAX_REVOKED = 1000
"""How many sessions one call ends at most."""

MAX_EXAMINED = 50_000
"""How many entries of a lookup one call looks at, at most."""

_NO_MARK = 0
_PAGE = 1000
_BATCH = 100


class OwnerFilter(NamedTuple):
    """Whose sessions are to be ended; at least one is given, and None is any."""

    agent_id: str | None
    user_id: str | None

    @property
    def owner_indexes(self) -> int:
        """How many lookups list them."""
        return 2 - self.count(None)


class Remainder(NamedTuple):
    """What is left to be examined: of that one among the lookups what is behind a place, as far as an end."""

    part: int
    place: Entry
    end: Entry

    def behind(self, place: Entry) -> "Remainder | None":
        return self._replace(place=place) if place.order < self.end.order else None


class Revoked(NamedTuple):
    """How many sessions were ended, and what was left to another call; None where everything was examined."""

    number: int
    rest: Remainder | None


class BulkRevocation:
    """Revokes over `lane`, which should not be the requests' own. When it raises, what has ended stays ended."""

    def __init__(self, redis: RedisClient, keys: Keys, events: SessionEvents) -> None:
        self._redis = redis
        self._keys = keys
        self._events = events

    async def revoke(self, whose: OwnerFilter, rest: Remainder | None = None) -> Revoked:
        """End what is listed now, or the `rest` that a call left; what is listed after the first call is left alone."""
        revoked = await self._revoke(whose, rest or await self._listed_now(whose))
        self._events.revoked(*whose, revoked.number, more=revoked.rest is not None)
        return revoked

    async def _listed_now(self, whose: OwnerFilter) -> Remainder | None:
        owner_indexes = self._keys.owner_indexes(*whose)
        sizes: list[int] = await self._redis.query(*[("ZCARD", owner_index) for owner_index in owner_indexes])
        shorter = sizes.index(min(sizes))
        end = await last_of(self._redis, owner_indexes[shorter])
        return None if end is None else Remainder(shorter, BEGINNING, end)

    async def _revoke(self, whose: OwnerFilter, rest: Remainder | None) -> Revoked:
        number, may_examine = 0, MAX_EXAMINED
        while rest is not None and may_examine and number < MAX_REVOKED:
            entries = await self._entries(whose, rest, min(_PAGE, may_examine))
            ended, place = await self._end_some(whose, rest, entries, MAX_REVOKED - number)
            number, may_examine = number + ended, may_examine - len(entries)
            rest = rest.behind(place)
        return Revoked(number, rest)

    async def _entries(self, whose: OwnerFilter, rest: Remainder, number: int) -> list[Entry]:
        stretch = Stretch(self._keys.owner_indexes(*whose)[rest.part], rest.place, number)
        (entries,) = await entries_of(self._redis, [stretch])
        return [entry for entry in entries if entry.order <= rest.end.order]

    async def _end_some(
        self, whose: OwnerFilter, rest: Remainder, entries: Sequence[Entry], most: int
    ) -> tuple[int, Entry]:
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

    async def _listed_by_all(self, whose: OwnerFilter, rest: Remainder, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Those that the other lookup holds too, where there is another."""
        others = [owner_index for part, owner_index in enumerate(self._keys.owner_indexes(*whose)) if part != rest.part]
        if not others or not entries:
            return entries
        ids = [entry.id for entry in entries]
        (scores,) = await self._redis.query(*[("ZMSCORE", owner_index, *ids) for owner_index in others])
        return [entry for entry, score in zip(entries, scores, strict=True) if score is not None]

    async def _end(self, whose: OwnerFilter, session_ids: Sequence[str]) -> int:
        """How many were ended. Marks come last: they take memory, and ending does not.

        Where a server is away the others end what they hold, and are heard, before StoreUnavailable is raised.
        """
        failures = PartialFailure()
        answers: dict[str, Reply] = {}
        ended = await self._end_or_mark(whose, session_ids, _NO_MARK, answers, failures)
        missing = [session_id for session_id, answer in answers.items() if answer == [b"missing"]]
        ended += await self._end_or_mark(whose, missing, REVOCATION_MARKER_MS, {}, failures)
        failures.raise_if_any()
        return ended

    async def _end_or_mark(
        self,
        whose: OwnerFilter,
        session_ids: Sequence[str],
        marker_lifetime_ms: int,
        answers: dict[str, Reply],
        failures: PartialFailure,
    ) -> int:
        """Put into `answers` what revoke.lua did, by id, where that is known; how many were ended."""
        try:
            await run_all(
                self._decide(whose, shard, marker_lifetime_ms, answers, failures)
                for shard in group_by_shard(session_ids)
            )
        finally:  # what was done has been done, also where a shard was tampered with
            ended = await self._settle(whose, answers)
        return ended

    async def _decide(
        self,
        whose: OwnerFilter,
        session_ids: Sequence[str],
        marker_lifetime_ms: int,
        answers: dict[str, Reply],
        failures: PartialFailure,
    ) -> None:
        """Of one shard: said twice, a session that the first time ended would be missing."""
        commands = [
            scripts.REVOKE.command(
                self._keys.of(session_id),
                id=session_id,
                agent_id=whose.agent_id or "",
                user_id=whose.user_id or "",
                marker_lifetime_ms=marker_lifetime_ms,
            )
            for session_id in session_ids
        ]
        with failures:
            answers.update(zip(session_ids, await self._redis.execute(*commands), strict=True))

    async def _settle(self, whose: OwnerFilter, answers: Mapping[str, Reply]) -> int:
        """Count the ended and take them and the marked out of the lookups; how many were ended."""
        revoked = {session_id: answer[1:] for session_id, answer in answers.items() if answer[0] == b"revoked"}
        for session_id, (agent_id, user_id) in revoked.items():
            self._events.ended(session_id, "revoked", agent_id.decode(), user_id.decode())
        leaving = defaultdict[str, list[str]](list)
        for session_id, answer in answers.items():
            for owner_index in self._left(whose, answer):
                leaving[owner_index].append(session_id)
        still_listed = await take_out(self._redis, self._keys, leaving, PartialFailure())
        for session_id in still_listed & revoked.keys():
            agent_id, user_id = revoked[session_id]
            why = "a server that lists it is away"
            self._events.left_behind(session_id, agent_id.decode(), user_id.decode(), why)
        return len(revoked)

    def _left(self, whose: OwnerFilter, answer: Reply) -> list[str]:
        """The lookups that an id leaves, as far as they are known."""
        match answer:
            case [b"revoked", agent_id, user_id]:
                return self._keys.owner_indexes(agent_id.decode(), user_id.decode())
            case [b"marked"] | [b"expired", _, _]:
                return self._keys.owner_indexes(*whose)
            case [b"other_owner"] | [b"lost"] | [b"missing"]:
                return []
            case _:
                raise UnexpectedReply(repr(answer))
