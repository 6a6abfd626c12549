"""Ending all sessions of a user, of an agent, or between the two: also those whose creation is under way.

A creation puts its id into the agent's lookup, then into the user's, and brings the session to life last. So an id in a
lookup without a session is of one that has ended, or of one that is on its way: a mark in its place refuses that.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from service import scripts
from service.indexes import BEGINNING, Stretch, end_of, entries_of
from service.keys import Keys
from service.lane import Lane, Reply, UnknownAnswer
from service.lifecycle import Lifecycle

MAX_REVOKED = 1000
"""How many sessions one call ends at most."""

MARK_LIFE_MS = 600_000
"""How long a mark refuses the creation that it met; none is on its way for as long as that."""

_NO_MARK = 0
_BATCH = 100


class Whose(NamedTuple):
    """Whose sessions are to be ended; at least one is given, and None is any."""

    agent_id: str | None
    user_id: str | None


class Revoked(NamedTuple):
    """How many sessions were ended, and whether more may be listed."""

    number: int
    more: bool


class Revocation:
    """Revokes over `lane`, which should not be the requests' own. When it raises, what has ended stays ended."""

    def __init__(self, lane: Lane, keys: Keys, lifecycle: Lifecycle) -> None:
        self._lane = lane
        self._keys = keys
        self._lifecycle = lifecycle

    async def revoke(self, whose: Whose) -> Revoked:
        """End what is listed now; what is listed later is left alone."""
        revoked = await self._revoke(whose)
        self._lifecycle.revoked(*whose, revoked.number, more=revoked.more)
        return revoked

    async def _revoke(self, whose: Whose) -> Revoked:
        lookup = self._keys.lookups(*whose)[0]
        end = await end_of(self._lane, lookup)
        number, place = 0, BEGINNING
        while end is not None and place.order < end:
            if number == MAX_REVOKED:
                return Revoked(number, more=True)
            stretch = Stretch(lookup, place, min(_BATCH, MAX_REVOKED - number))
            (entries,) = await entries_of(self._lane, [stretch])
            entries = [entry for entry in entries if entry.order <= end]
            if not entries:
                break
            number += await self._end(whose, [entry.id for entry in entries])
            place = entries[-1]
        return Revoked(number, more=False)

    async def _end(self, whose: Whose, session_ids: Sequence[str]) -> int:
        """How many were ended. Marks come last: they take memory, and ending does not."""
        answers = await self._decided(whose, session_ids, _NO_MARK)
        missing = [session_id for session_id, answer in answers.items() if answer == [b"missing"]]
        ended = await self._settle(whose, answers)
        on_their_way = await self._of_agent(whose, missing)
        return ended + await self._settle(whose, await self._decided(whose, on_their_way, MARK_LIFE_MS))

    async def _decided(self, whose: Whose, session_ids: Sequence[str], mark_life_ms: int) -> dict[str, Reply]:
        """What revoke.lua did, by id."""
        if not session_ids:
            return {}
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
        return dict(zip(session_ids, await self._lane.change(*commands), strict=True))

    async def _of_agent(self, whose: Whose, session_ids: Sequence[str]) -> list[str]:
        """Those that may be of the agent: by the order of a creation, its lookup has them if the user's has."""
        if whose.agent_id is None or whose.user_id is None or not session_ids:
            return list(session_ids)
        (scores,) = await self._lane.ask(("ZMSCORE", self._keys.agent(whose.agent_id), *session_ids))
        return [session_id for session_id, score in zip(session_ids, scores, strict=True) if score is not None]

    async def _settle(self, whose: Whose, answers: Mapping[str, Reply]) -> int:
        """Count the ended and take them and the marked out of the lookups; how many were ended."""
        revoked = [session_id for session_id, answer in answers.items() if answer[0] == b"revoked"]
        for session_id in revoked:
            self._lifecycle.ended(session_id, "revoked")
        leaving = defaultdict[str, list[str]](list)
        for session_id, answer in answers.items():
            for lookup in self._left(whose, answer):
                leaving[lookup].append(session_id)
        if leaving:
            await self._lane.change(*[("ZREM", lookup, *session_ids) for lookup, session_ids in leaving.items()])
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
