"""Ends sessions of a user or an agent so that others may begin: the least recently active of those that live.

When a session was active last only its own hash says. So what lies beside a lookup is a queue by bounds: no session in
it was active before its place. Those in front are looked at, and put where they belong; whichever was active before all
bounds behind them is the one.
"""

from collections.abc import Sequence

from service.redis_client.client import RedisClient, Reply, run_all
from service.redis_client.errors import UnderReplicated, UnexpectedReply
from service.sessions import scripts
from service.sessions.caps import Owner
from service.sessions.events import SessionEvents
from service.sessions.keys import Keys
from service.sessions.occupancy import LiveSession, Occupancy
from service.sessions.owner_index import OwnerIndex


class Eviction:
    def __init__(
        self, redis: RedisClient, keys: Keys, events: SessionEvents, owner_indexes: OwnerIndex, occupancy: Occupancy
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._events = events
        self._owner_index = owner_indexes
        self._occupancy = occupancy

    async def end_idlest(self, owner: Owner, living: Sequence[LiveSession], number: int, before_ms: float) -> None:
        """Of an owner's sessions end the least recently active, so many of those active by then as there are."""
        by_activity = sorted(living, key=lambda session: session.last_activity_ms)
        idlest = [session for session in by_activity if session.last_activity_ms <= before_ms]
        await run_all(self._end(owner, session) for session in idlest[:number])

    async def _end(self, owner: Owner, session: LiveSession) -> None:
        command = scripts.EVICT.command(
            self._keys.of(session.id), id=session.id, owner_id=owner.id, last_activity=session.last_activity
        )
        try:
            (answer,) = await self._redis.execute(command)
        except UnderReplicated as fault:  # it has ended all the same
            await self._settle(owner, session.id, fault.replies[-1])
            raise
        await self._settle(owner, session.id, answer)

    async def _settle(self, owner: Owner, session_id: str, answer: Reply) -> None:
        match answer:
            case [b"evicted", agent_id, user_id]:
                self._events.ended(session_id, "evicted", agent_id.decode(), user_id.decode())
                await self._owner_index.remove(session_id, agent_id.decode(), user_id.decode())
            case [b"expired", *_] | [b"missing"] | [b"lost"] | [b"other_owner"]:
                await self._occupancy.leave(owner, [session_id])
            case [b"active"]:
                pass
            case _:
                raise UnexpectedReply(repr(answer))
