"""How a session gets a place among those of its user and its agent, where there are caps on them.

A lookup lists an id before its session lives, and until that has ended. So whoever is listed only where there are fewer
than the cap, in the script that counts them, is never one too many: whatever other replicas do meanwhile, and whatever
becomes of them. What is listed and lives no more is found when a lookup is full, and leaves it there and then.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import NamedTuple

from service.errors import CreationContention, SessionLimitReached, StoreUnavailable
from service.redis_client.client import RedisClient
from service.redis_client.errors import CommandRejected, ScriptError, UnexpectedReply
from service.sessions import scripts
from service.sessions.caps import Owner, owners_of
from service.sessions.events import SessionEvents
from service.sessions.eviction import Eviction
from service.sessions.idempotency import AlreadyCreated
from service.sessions.keyed_lock import KeyedLock
from service.sessions.keys import Keys
from service.sessions.occupancy import LOOK_AGAIN_MS, LiveSession, Occupancy
from service.sessions.owner_index import OwnerIndex
from service.settings import Settings
from service.settings.sessions import NO_CAP, Caps

_MOST_UNKNOWN = 250
"""How many of those not known to live are looked at together."""

_SAMPLE, _FRONT, _MOST_AT_ONCE = 16, 8, 250
"""How many of those that are known to live are looked at before a session is refused, or some of them end for it.

They may have been lost, and those in front of the queue may have been active since.
"""


Unless = Callable[[], Awaitable[None]]
"""Awaited before an id is refused, or a session ends for it. Raises CameFirst where it needs no place any more."""


class Full(NamedTuple):
    """Whose lookup is full, how many it lists, which of them are not known to live, and some of those that are.

    Where sessions are evicted, those are in front of the queue: each was active at its bound or later, and every one
    behind them at the last bound or later.
    """

    owner: Owner
    number: int
    unknown: list[str]
    others: list[str]
    bounds_ms: list[float]
    last_bound_ms: float

    @property
    def too_many(self) -> int:
        return self.number - self.owner.cap + 1

    def news_in(self, living: Sequence[LiveSession]) -> list[LiveSession]:
        """Those of whom more is known now. Without eviction there are no bounds, and nothing is news of the others."""
        unknown, bounds_ms = set(self.unknown), dict(zip(self.others, self.bounds_ms, strict=False))
        return [
            session
            for session in living
            if session.id in unknown or bounds_ms.get(session.id, session.last_activity_ms) < session.last_activity_ms
        ]


class CapEnforcer:
    """Admits ids to lookups. One that is refused, or of which it is not known, is in none, or will soon be in none."""

    def __init__(
        self,
        redis: RedisClient,
        keys: Keys,
        events: SessionEvents,
        owner_indexes: OwnerIndex,
        caps: Caps,
        settings: Settings,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._events = events
        self._owner_index = owner_indexes
        self._caps = caps
        self._owner_index_lifetime_ms = settings.owner_index_lifetime_ms
        self._wait_seconds = settings.session_store_timeout_seconds
        self._occupancy = Occupancy(redis, keys, wait_ms=round(self._wait_seconds * 1000))
        self._eviction = Eviction(redis, keys, events, owner_indexes, self._occupancy)
        self._locks = KeyedLock(self._wait_seconds)

    async def admit(self, session_id: str, agent_id: str, user_id: str, unless: Unless) -> None:
        """List an id that is to come to life.

        Raises SessionLimitReached, CreationContention, StoreUnavailable, and what `unless` does.
        """
        is_listed = False
        try:
            for owners in self._together(owners_of(self._caps, self._keys, agent_id, user_id)):
                await self._admit(session_id, owners, unless)
                is_listed = True
        except (SessionLimitReached, CreationContention, AlreadyCreated):
            if is_listed:
                await self._owner_index.remove(session_id, agent_id, user_id)
            raise
        except (CommandRejected, ScriptError):
            await self._owner_index.remove(session_id, agent_id, user_id)
            raise
        except StoreUnavailable as error:  # what was sent may be carried out yet
            self._events.left_behind(session_id, agent_id, user_id, error.cause)
            raise

    def _together(self, owners: Sequence[Owner]) -> list[Sequence[Owner]]:
        """Those whose lookups one script may reach: then an id is put into all or none."""
        return [owners] if self._redis.supports_multi_slot else [[owner] for owner in owners]

    async def _admit(self, session_id: str, owners: Sequence[Owner], unless: Unless) -> None:
        full = await self._list(session_id, owners)
        if full is not None and not full.unknown and not self._caps.evicts:
            await self._find_room(full, unless)
            full = await self._list(session_id, owners)
        if full is None:
            return
        try:
            async with self._locks.at(full.owner.owner_index) as others_came_first:
                await self._admit_in_turn(session_id, owners, None if others_came_first else full, unless)
        except TimeoutError:
            raise CreationContention(full.owner.kind, full.owner.id) from None

    async def _admit_in_turn(self, session_id: str, owners: Sequence[Owner], full: Full | None, unless: Unless) -> None:
        """What many would look at, or end, one does for all in this replica; other replicas may come between."""
        clock = asyncio.get_running_loop().time
        patient_until = clock() + self._wait_seconds
        full, front = full or await self._list(session_id, owners), _FRONT
        while full is not None:
            if clock() > patient_until:
                raise CreationContention(full.owner.kind, full.owner.id)
            if not await self._find_room(full, unless):
                await asyncio.sleep(LOOK_AGAIN_MS / 1000)
            front = min(max(full.too_many, 2 * front), _MOST_AT_ONCE)
            full = await self._list(session_id, owners, front=front)

    async def _find_room(self, full: Full, unless: Unless) -> bool:
        """Look whether what is listed lives, then do as the policy says; whether it is worth trying again at once.

        Raises SessionLimitReached where all places are taken and nobody has to leave.
        """
        owner = full.owner
        seen = await self._occupancy.look(owner, {*full.unknown, *full.others})
        await self._occupancy.keep(owner, full.news_in(seen.living))
        if seen.left or len(full.unknown) == _MOST_UNKNOWN:
            return True
        if self._caps.evicts:
            await unless()
            await self._eviction.end_idlest(owner, seen.living, full.too_many, full.last_bound_ms)
            return bool(seen.living)
        if not seen.some_are_coming:
            await unless()
            self._events.denied(owner.kind)
            raise SessionLimitReached(owner.kind, owner.id, owner.cap)
        return False

    async def _list(self, session_id: str, owners: Sequence[Owner], *, front: int = _FRONT) -> Full | None:
        """List the id for all of them, or say who has no place, with so many in front of the queue."""
        first_cap, second_cap = [*(owner.cap for owner in owners), NO_CAP][:2]
        command = scripts.ADD_WITHIN_CAPS.command_with_keys(
            [key for owner in owners for key in self._keys.beside(owner.owner_index)],
            id=session_id,
            owner_index_lifetime_ms=self._owner_index_lifetime_ms,
            first_cap=first_cap,
            second_cap=second_cap,
            evicts="true" if self._caps.evicts else "false",
            max_unverified=_MOST_UNKNOWN,
            max_candidates=front if self._caps.evicts else _SAMPLE,
        )
        (answer,) = await self._redis.execute(command)
        match answer:
            case [b"added"]:
                return None
            case [b"full", place, number, unknown, others]:
                ids, texts = [session_id.decode() for session_id in unknown], [text.decode() for text in others]
                if not self._caps.evicts:
                    return Full(owners[place], number, ids, texts, [], inf)
                bounds_ms = [float(bound) for bound in texts[1::2]]
                last_bound_ms = bounds_ms[-1] if len(bounds_ms) == front else inf
                return Full(owners[place], number, ids, texts[::2], bounds_ms, last_bound_ms)
            case _:
                raise UnexpectedReply(repr(answer))
