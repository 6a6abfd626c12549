"""Enforce caps on the live sessions of a user and of an agent.

add_within_caps.lua adds an id to the owner indexes only below the caps, before the session is created. An id stays
until its session has ended. So live sessions never exceed a cap, also across replicas. When an index is at its
cap, ids of ended sessions are removed from it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import NamedTuple

from service.errors import CreationContention, SessionLimitReached, StoreUnavailable
from service.redis_client.client import RedisClient, Reply, run_all
from service.redis_client.errors import CommandRejected, ScriptError, UnderReplicated, UnexpectedReply
from service.sessions import scripts
from service.sessions.events import SessionEvents
from service.sessions.idempotency import AlreadyCreated
from service.sessions.index_scan import decode_id
from service.sessions.keyed_lock import KeyedLock
from service.sessions.keys import Keys
from service.sessions.occupancy import RECHECK_MS, CappedOwner, CountedSession, Occupancy, owners_of
from service.sessions.owner_index import OwnerIndex
from service.sessions.session import NewSession
from service.settings import Settings
from service.settings.sessions import NO_CAP, Caps

_MAX_UNVERIFIED = 250
"""The most ids to verify together that are not known to be live."""

_SAMPLE_SIZE, _MIN_CANDIDATES, _MAX_CANDIDATES = 16, 8, 250
"""How many ids of known live sessions to verify before a refusal, or before evictions."""

_MAX_OWN_IDS = 10_000
"""How many ids of a user to search for sessions of an agent. The first are the oldest."""

BeforeRefusal = Callable[[], Awaitable[None]]
"""Awaited before a refusal or an eviction. Raises AlreadyCreated if another request has created the session."""


class Full(NamedTuple):
    """An owner at their cap, the size of their index, ids not known to be live, and a selection of the others.

    For eviction, these candidates are the least recently active ones by the bounds known of them. Every other session
    was active at the last bound or later.
    """

    owner: CappedOwner
    size: int
    unverified: list[str]
    candidates: list[str]
    bounds_ms: list[float]
    last_bound_ms: float

    @property
    def excess(self) -> int:
        """How many sessions must end before one can be created."""
        return self.size - self.owner.cap + 1

    @property
    def needed(self) -> int:
        """How many sessions of a user must be candidates before some are evicted."""
        return min(self.excess, _MAX_CANDIDATES)

    def changed(self, live: Sequence[CountedSession]) -> list[CountedSession]:
        """Select the sessions about which more is known now."""
        unverified, bounds_ms = set(self.unverified), dict(zip(self.candidates, self.bounds_ms, strict=False))
        return [
            session
            for session in live
            if session.id in unverified
            or bounds_ms.get(session.id, session.last_activity_ms) < session.last_activity_ms
        ]


class Eviction:
    """Evicts the least recently active sessions of an owner at their cap.

    Only a session's hash holds its last activity. A sorted set beside the owner index orders ids by lower bounds of it.
    So the first ids are read, and a session is evicted if it was active before the bounds of all ids behind.
    """

    def __init__(
        self, client: RedisClient, keys: Keys, events: SessionEvents, owner_index: OwnerIndex, occupancy: Occupancy
    ) -> None:
        self._client = client
        self._keys = keys
        self._events = events
        self._owner_index = owner_index
        self._occupancy = occupancy

    async def evict(
        self, owner: CappedOwner, live: Sequence[CountedSession], number: int, active_until_ms: float
    ) -> None:
        """Evict up to `number` of the owner's sessions, the least recently active first, active until then at most."""
        by_activity = sorted(live, key=lambda session: session.last_activity_ms)
        least_active = [session for session in by_activity if session.last_activity_ms <= active_until_ms]
        await run_all(self._evict(owner, session) for session in least_active[:number])

    async def _evict(self, owner: CappedOwner, session: CountedSession) -> None:
        command = scripts.EVICT.command(
            self._keys.of(session.id), id=session.id, owner_id=owner.id, last_activity=session.last_activity
        )
        try:
            (reply,) = await self._client.execute(command)
        except UnderReplicated as error:  # the session was evicted
            await self._process(owner, session.id, error.replies[-1])
            raise
        await self._process(owner, session.id, reply)

    async def _process(self, owner: CappedOwner, session_id: str, reply: Reply) -> None:
        match reply:
            case [b"evicted", agent_id, user_id]:
                self._events.ended(session_id, "evicted", agent_id.decode(), user_id.decode())
                await self._owner_index.remove(session_id, agent_id.decode(), user_id.decode())
            case [b"expired", *_] | [b"missing"] | [b"lost"] | [b"other_owner"]:
                await self._occupancy.remove(owner, [session_id])
            case [b"active"]:
                pass
            case _:
                raise UnexpectedReply(repr(reply))


class CapEnforcer:
    """Adds ids of new sessions to owner indexes. Removes a refused id from all of them, immediately or later."""

    def __init__(
        self,
        client: RedisClient,
        keys: Keys,
        events: SessionEvents,
        owner_index: OwnerIndex,
        caps: Caps,
        settings: Settings,
    ) -> None:
        self._client = client
        self._keys = keys
        self._events = events
        self._owner_index = owner_index
        self._caps = caps
        self._owner_index_lifetime_ms = settings.owner_index_lifetime_ms
        self._timeout_seconds = settings.session_store_timeout_seconds
        self._occupancy = Occupancy(client, keys, creation_ms=round(self._timeout_seconds * 1000))
        self._eviction = Eviction(client, keys, events, owner_index, self._occupancy)
        self._locks = KeyedLock(self._timeout_seconds)

    async def admit(self, session_id: str, request: NewSession, before_refusal: BeforeRefusal) -> None:
        """Add the id of a new session to the owner indexes.

        Raises SessionLimitReached, CreationContention, StoreUnavailable and the errors of `before_refusal`.
        """
        agent_id, user_id = request.agent_id, request.user_id
        is_added = False
        try:
            for owners in self._groups(owners_of(self._caps, self._keys, request)):
                await self._admit(session_id, owners, before_refusal)
                is_added = True
        except (SessionLimitReached, CreationContention, AlreadyCreated):
            if is_added:
                await self._owner_index.remove(session_id, agent_id, user_id)
            raise
        except (CommandRejected, ScriptError):
            await self._owner_index.remove(session_id, agent_id, user_id)
            raise
        except StoreUnavailable as error:  # Redis may still execute the command
            self._events.index_entry_left(session_id, agent_id, user_id, error.cause)
            raise

    def _groups(self, owners: Sequence[CappedOwner]) -> list[Sequence[CappedOwner]]:
        """Group owners whose indexes one script can change together."""
        return [owners] if self._client.supports_multi_slot else [[owner] for owner in owners]

    async def _admit(self, session_id: str, owners: Sequence[CappedOwner], before_refusal: BeforeRefusal) -> None:
        full = await self._add(session_id, owners)
        if full is not None and not full.unverified and not self._caps.evicts:
            await self._make_room(full, before_refusal)
            full = await self._add(session_id, owners)
        if full is None:
            return
        try:
            async with self._locks.hold(full.owner.owner_index) as has_waited:
                await self._admit_in_turn(session_id, owners, None if has_waited else full, before_refusal)
        except TimeoutError:
            raise CreationContention(full.owner.kind, full.owner.id) from None

    async def _admit_in_turn(
        self, session_id: str, owners: Sequence[CappedOwner], full: Full | None, before_refusal: BeforeRefusal
    ) -> None:
        """Make room for one creation of this replica at a time, so that each benefits from the verifications before."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._timeout_seconds
        full, candidates = full or await self._add(session_id, owners), _MIN_CANDIDATES
        while full is not None:
            if clock() > deadline:
                raise CreationContention(full.owner.kind, full.owner.id)
            if not await self._make_room(full, before_refusal):
                await asyncio.sleep(RECHECK_MS / 1000)
            candidates = min(max(full.excess, 2 * candidates), _MAX_CANDIDATES)
            full = await self._add(session_id, owners, candidates=candidates)

    async def _make_room(self, full: Full, before_refusal: BeforeRefusal) -> bool:
        """Verify ids, then evict or refuse. Return whether to try again without a pause.

        Raises SessionLimitReached if the cap is reached and too few sessions may be evicted.
        """
        owner = full.owner
        verified = await self._occupancy.verify(owner, {*full.unverified, *full.candidates})
        await self._occupancy.record(owner, full.changed(verified.live))
        if verified.removed or len(full.unverified) == _MAX_UNVERIFIED:
            return True
        evictable = [session for session in verified.live if owner.may_evict(session)]
        if self._caps.evicts and (owner.evictable_user_id is None or len(evictable) >= full.needed):
            await before_refusal()
            await self._eviction.evict(owner, evictable, full.excess, full.last_bound_ms)
            return bool(evictable)
        if not verified.are_some_in_creation:
            await before_refusal()
            self._events.creation_denied(owner.kind)
            raise SessionLimitReached(owner.kind, owner.id, owner.cap)
        return False

    async def _add(
        self, session_id: str, owners: Sequence[CappedOwner], *, candidates: int = _MIN_CANDIDATES
    ) -> Full | None:
        """Add the id to the owners' indexes, or return the first owner at their cap."""
        first_cap, second_cap = [*(owner.cap for owner in owners), NO_CAP][:2]
        command = scripts.ADD_WITHIN_CAPS.command_with_keys(
            [key for owner in owners for key in self._keys.capped_index(owner.owner_index)],
            id=session_id,
            owner_index_lifetime_ms=self._owner_index_lifetime_ms,
            first_cap=first_cap,
            second_cap=second_cap,
            evicts="true" if self._caps.evicts else "false",
            max_unverified=_MAX_UNVERIFIED,
            max_candidates=candidates if self._caps.evicts else _SAMPLE_SIZE,
        )
        (reply,) = await self._client.execute(command)
        match reply:
            case [b"added"]:
                return None
            case [b"full", number, size, unverified, found]:
                ids, texts = [*map(decode_id, unverified)], [*map(decode_id, found)]
                if not self._caps.evicts:
                    return Full(owners[number], size, ids, texts, [], inf)
                bounds_ms = [float(bound) for bound in texts[1::2]]
                last_bound_ms = bounds_ms[-1] if len(bounds_ms) == candidates else inf
                full = Full(owners[number], size, ids, texts[::2], bounds_ms, last_bound_ms)
                return await self._with_candidates_of_user(full, candidates)
            case _:
                raise UnexpectedReply(repr(reply))

    async def _with_candidates_of_user(self, full: Full, number: int) -> Full:
        """Replace the candidates if only sessions of one user may be evicted."""
        user_id = full.owner.evictable_user_id
        if user_id is None:
            return full
        (ids,) = await self._client.query(("ZRANGE", self._keys.user(user_id), 0, _MAX_OWN_IDS - 1))
        activity = self._keys.capped_index(full.owner.owner_index).activity
        (bounds,) = await self._client.query(("ZMSCORE", activity, *ids)) if ids else [()]
        own = sorted(
            (float(bound), decode_id(id_)) for id_, bound in zip(ids, bounds, strict=True) if bound is not None
        )
        own = own if len(own) >= full.excess else []
        selected = own[: max(number, full.needed)]
        return full._replace(
            candidates=[session_id for _, session_id in selected],
            bounds_ms=[bound_ms for bound_ms, _ in selected],
            last_bound_ms=inf if len(selected) == len(own) else selected[-1][0],
        )
