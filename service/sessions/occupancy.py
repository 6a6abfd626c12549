"""Verify which ids in an owner index that is at its cap have a live session, and remove the others.

An owner index also holds ids under creation, and ended sessions until they are swept. For each id, a sorted set beside
the index holds the expiry that was last read. Ids count as live until then without being read again.
"""

from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from typing import Literal, NamedTuple

from service.redis_client.client import PartialFailure, RedisClient, Reply, readable_hashes
from service.redis_client.errors import UnexpectedReply
from service.redis_client.scripts import Command
from service.sessions import scripts
from service.sessions.index_scan import Entry
from service.sessions.keys import REVOCATION_MARKER_MS, Keys
from service.sessions.owner_index import remove_from_owner_indexes
from service.sessions.session import NewSession
from service.settings.sessions import Caps
from service.timestamps import ms_from_time_reply

ABANDONED_MS = 30_000
"""How long an id may be in an index without a session before its creation counts as failed."""

RECHECK_MS = 5
"""How long to wait before an id is checked again whose session is about to be created."""

_LATE_RECHECK_MS = 1000
_FIELDS = (b"agentId", b"userId", b"lastActivity", b"expiresAt")
_UNREADABLE = (None, None, None, None), 0
_EXPIRES_AT = scripts.FIELDS.index(b"expiresAt")
_NO_OWNER = "nobody"


class CappedOwner(NamedTuple):
    """A user or an agent with a cap on their live sessions, or NO_CAP, and the key of their owner index."""

    kind: Literal["user", "agent"]
    id: str
    cap: int
    owner_index: str
    evictable_user_id: str | None = None
    """The only user whose sessions may be evicted. None: all users."""

    def may_evict(self, session: "CountedSession") -> bool:
        return self.evictable_user_id in (None, session.user_id)


def owners_of(caps: Caps, keys: Keys, request: NewSession) -> list[CappedOwner]:
    """The owners of a session. The user comes first, so that a user at their cap takes no place of the agent's."""
    agent_id, user_id = request.agent_id, request.user_id
    evictable_user_id = user_id if request.evicts_only_own else None
    return [
        CappedOwner("user", user_id, caps.per_user, keys.user(user_id)),
        CappedOwner("agent", agent_id, caps.per_agent, keys.agent(agent_id), evictable_user_id),
    ]


class CountedSession(NamedTuple):
    """A live session of an owner with a cap. Its times are as stored."""

    id: str
    user_id: str
    last_activity: bytes
    expires_at: bytes

    @property
    def last_activity_ms(self) -> int:
        return int(self.last_activity)


class Verified(NamedTuple):
    """The result of a verification: live sessions, how many ids were removed, and whether others are being created."""

    live: Sequence[CountedSession]
    removed: int
    are_some_in_creation: bool


class Occupancy:
    """Verifies ids. An id added within `creation_ms` and without a session is about to have one."""

    def __init__(self, client: RedisClient, keys: Keys, *, creation_ms: int) -> None:
        self._client = client
        self._keys = keys
        self._creation_ms = creation_ms

    async def verify(self, owner: CappedOwner, session_ids: Collection[str]) -> Verified:
        """Read sessions of an owner index, and remove ids without one. Raises StoreUnavailable and ScriptError."""
        unreadable = [session_id for session_id in session_ids if not Entry("", session_id).is_readable]
        live, not_live, foreign = await self._read(owner, [id_ for id_ in session_ids if id_ not in unreadable])
        ended, missing, is_created = await self._check_status(not_live)
        failed, is_in_creation = await self._check_creation(owner, missing)
        to_remove = [*unreadable, *foreign, *ended, *failed]
        await self.remove(owner, to_remove)
        return Verified(live, len(to_remove), is_created or is_in_creation)

    async def record(self, owner: CappedOwner, live: Sequence[CountedSession]) -> None:
        """Record the expiry and activity of sessions. Ids that have left the index meanwhile are not added."""
        if live:
            capped = self._keys.capped_index(owner.owner_index)
            await self._client.execute(
                _update_command(capped.ends, [(session.expires_at, session.id) for session in live]),
                _update_command(capped.activity, [(session.last_activity, session.id) for session in live]),
            )

    async def remove(self, owner: CappedOwner, session_ids: Sequence[str]) -> None:
        """Remove ids from the owner's index. Raises StoreUnavailable."""
        failures = PartialFailure()
        if session_ids:
            ids_by_index = {owner.owner_index: session_ids}
            await remove_from_owner_indexes(self._client, self._keys, ids_by_index, failures)
        failures.raise_if_any()

    async def _read(
        self, owner: CappedOwner, session_ids: Sequence[str]
    ) -> tuple[list[CountedSession], list[str], list[str]]:
        """Return the owner's live sessions, ids that are not live, and ids of other owners."""
        live, not_live, foreign = list[CountedSession](), list[str](), list[str]()
        keys = [self._keys.session(session_id) for session_id in session_ids]
        found = await readable_hashes(self._client, keys, _FIELDS) if keys else []
        for session_id, read in zip(session_ids, found, strict=True):
            (agent_id, user_id, last_activity, expires_at), now_ms = read or _UNREADABLE
            if not (expires_at or b"").isdigit() or int(expires_at or b"") <= now_ms:
                not_live.append(session_id)
            elif owner.id.encode() not in (agent_id, user_id):
                foreign.append(session_id)
            else:
                activity = last_activity or b""
                live.append(
                    CountedSession(
                        session_id,
                        (user_id or b"").decode(errors="replace"),
                        activity if activity.isdigit() else b"0",
                        expires_at or b"",
                    )
                )
        return live, not_live, foreign

    async def _check_status(self, session_ids: Sequence[str]) -> tuple[list[str], list[str], bool]:
        """Return ids of ended sessions, ids without any trace, and whether a session was created after the read."""
        commands = [scripts.STATUS.command(self._keys.of(session_id), owner_id="") for session_id in session_ids]
        replies: list[Reply] = await self._client.query(*commands) if commands else []
        ended, missing, is_created = list[str](), list[str](), False
        for session_id, reply in zip(session_ids, replies, strict=True):
            match reply:
                case [b"expired", *_] | [b"lost"] | [b"unreadable"]:
                    ended.append(session_id)
                case [b"live", _, values] if not values[_EXPIRES_AT].isdigit():
                    ended.append(session_id)
                case [b"missing"]:
                    missing.append(session_id)
                case [b"live", *_]:
                    is_created = True
                case _:
                    raise UnexpectedReply(repr(reply))
        return ended, missing, is_created

    async def _check_creation(self, owner: CappedOwner, session_ids: Sequence[str]) -> tuple[list[str], bool]:
        """Return ids whose creation failed, and whether another session is about to be created."""
        if not session_ids:
            return [], False
        scores, time = await self._client.query(("ZMSCORE", owner.owner_index, *session_ids), ("TIME",))
        now_ms = ms_from_time_reply(time)
        added_at = zip(session_ids, scores, strict=True)
        ages_ms = {session_id: now_ms - float(added_ms) for session_id, added_ms in added_at if added_ms is not None}
        failed = await self._mark_abandoned([id_ for id_, age_ms in ages_ms.items() if age_ms > ABANDONED_MS])
        failed += [session_id for session_id in session_ids if session_id not in ages_ms]
        pending = [session_id for session_id in ages_ms if session_id not in failed]
        recent = [session_id for session_id in pending if ages_ms[session_id] <= self._creation_ms]
        await self._recheck_after(owner, pending, now_ms, RECHECK_MS if recent else _LATE_RECHECK_MS)
        return failed, bool(recent)

    async def _mark_abandoned(self, session_ids: Sequence[str]) -> list[str]:
        """Leave markers that refuse creations which are still running (see revocation.py). Return the marked ids."""
        commands = [
            scripts.REVOKE.command(
                self._keys.of(session_id),
                id=session_id,
                agent_id=_NO_OWNER,
                user_id=_NO_OWNER,
                marker_lifetime_ms=REVOCATION_MARKER_MS,
            )
            for session_id in session_ids
        ]
        replies: list[Reply] = await self._client.execute(*commands) if commands else []
        return [session_id for session_id, reply in zip(session_ids, replies, strict=True) if reply == [b"marked"]]

    async def _recheck_after(self, owner: CappedOwner, session_ids: Sequence[str], now_ms: int, delay_ms: int) -> None:
        """Count ids as live for `delay_ms`. Their sessions, once created, were active now or later."""
        if session_ids:
            capped = self._keys.capped_index(owner.owner_index)
            await self._client.execute(
                _update_command(capped.ends, [(now_ms + delay_ms, session_id) for session_id in session_ids]),
                _update_command(capped.activity, [(now_ms, session_id) for session_id in session_ids]),
            )


def _update_command(key: str, scores: Iterable[tuple[bytes | int, str]]) -> Command:
    """Build a command that changes the scores of present ids and adds none."""
    return ("ZADD", key, "XX", *chain.from_iterable(scores))
