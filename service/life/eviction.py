"""Ends sessions of a user or an agent so that others may begin: the least recently active of those that live.

When a session was active last only its own hash says. So what lies beside a lookup is a queue by bounds: no session in
it was active before its place. Those in front are looked at, and put where they belong; whichever was active before all
bounds behind them is the one.
"""

from collections.abc import Sequence

from service.lanes.lane import Lane, Reply, UnknownAnswer, Unreplicated
from service.lanes.outages import all_of
from service.life import scripts
from service.life.caps import Owner
from service.life.keys import Keys
from service.life.lifecycle import Lifecycle
from service.life.lookups import Lookups
from service.life.occupancy import Living, Occupancy


class Eviction:
    def __init__(self, lane: Lane, keys: Keys, lifecycle: Lifecycle, lookups: Lookups, occupancy: Occupancy) -> None:
        self._lane = lane
        self._keys = keys
        self._lifecycle = lifecycle
        self._lookups = lookups
        self._occupancy = occupancy

    async def end_idlest(self, owner: Owner, living: Sequence[Living], number: int, before_ms: float) -> None:
        """Of an owner's sessions end the least recently active, so many of those active by then as there are."""
        by_activity = sorted(living, key=lambda session: session.last_activity_ms)
        idlest = [session for session in by_activity if session.last_activity_ms <= before_ms]
        await all_of(self._end(owner, session) for session in idlest[:number])

    async def _end(self, owner: Owner, session: Living) -> None:
        command = scripts.EVICT.command(
            self._keys.of(session.id), id=session.id, owner_id=owner.id, last_activity=session.last_activity
        )
        try:
            (answer,) = await self._lane.change(command)
        except Unreplicated as fault:  # it has ended all the same
            await self._settle(owner, session.id, fault.replies[-1])
            raise
        await self._settle(owner, session.id, answer)

    async def _settle(self, owner: Owner, session_id: str, answer: Reply) -> None:
        match answer:
            case [b"evicted", agent_id, user_id]:
                self._lifecycle.ended(session_id, "evicted", agent_id.decode(), user_id.decode())
                await self._lookups.delist(session_id, agent_id.decode(), user_id.decode())
            case [b"expired", *_] | [b"missing"] | [b"lost"] | [b"other"]:
                await self._occupancy.leave(owner, [session_id])
            case [b"active"]:
                pass
            case _:
                raise UnknownAnswer(repr(answer))
