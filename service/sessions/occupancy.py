"""Who really occupies the places of a user or an agent: what lives, and what is on its way. The rest leaves at once.

A lookup lists more than lives: an id is there before its session, and stays for the seconds until that is swept. So one
that is full may have room. What was seen to live is taken to, until the end that it had then; only what is not known to
live is looked at again, so that a long lookup is not read anew for each session that it has no room for.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from service.redis_client.client import PartialFailure, RedisClient, Reply
from service.redis_client.errors import UnexpectedReply
from service.redis_client.scripts import Command
from service.sessions import scripts
from service.sessions.caps import Owner
from service.sessions.keys import REVOCATION_MARKER_MS, Keys
from service.sessions.owner_index import take_out
from service.timestamps import ms_from_time_reply

ABANDONED_MS = 30_000
"""How long after it was listed an id without a session is waited for; then its creation is held for one that failed."""

LOOK_AGAIN_MS = 5
"""When what is on its way is looked at again."""

_LOOK_AGAIN_LATER_MS = 1000
_FIELDS = (b"agentId", b"userId", b"lastActivity", b"expiresAt")
_NOBODY = "nobody"


class LiveSession(NamedTuple):
    """A session that lives, and its instants as they were seen."""

    id: str
    last_activity: bytes
    expires_at: bytes

    @property
    def last_activity_ms(self) -> int:
        return int(self.last_activity)


class Seen(NamedTuple):
    """What was found of ids: those that live, how many have left, and whether others are to live in a moment."""

    living: Sequence[LiveSession]
    left: int
    some_are_coming: bool


class Occupancy:
    """Looks over `lane`. What was listed within `patience_ms` and has no session yet is about to have one."""

    def __init__(self, redis: RedisClient, keys: Keys, *, wait_ms: int) -> None:
        self._redis = redis
        self._keys = keys
        self._wait_ms = wait_ms

    async def look(self, owner: Owner, listed: Iterable[str]) -> Seen:
        """Look at ids that an owner's lookup lists. Raises StoreUnavailable and ScriptFault."""
        living, absent, others = await self._read(owner, list(listed))
        gone, unknown, has_come = await self._judge(absent)
        failed, is_coming = await self._wait_for(owner, unknown)
        leaving = [*others, *gone, *failed]
        await self.leave(owner, leaving)
        return Seen(living, len(leaving), has_come or is_coming)

    async def keep(self, owner: Owner, living: Sequence[LiveSession]) -> None:
        """Note beside the lookup what was seen; what has left it meanwhile is not put back."""
        if living:
            beside = self._keys.beside(owner.owner_index)
            await self._redis.execute(
                _moved(beside.ends, [(session.expires_at, session.id) for session in living]),
                _moved(beside.activity, [(session.last_activity, session.id) for session in living]),
            )

    async def leave(self, owner: Owner, session_ids: Sequence[str]) -> None:
        """Take ids out of the owner's lookup, which do not live or are not theirs."""
        failures = PartialFailure()
        if session_ids:
            await take_out(self._redis, self._keys, {owner.owner_index: session_ids}, failures)
        failures.raise_if_any()

    async def _read(self, owner: Owner, session_ids: Sequence[str]) -> tuple[list[LiveSession], list[str], list[str]]:
        """The owner's that live, those of which there is nothing that does, and those that are others'."""
        living, absent, others = list[LiveSession](), list[str](), list[str]()
        found = await self._redis.read_hashes([self._keys.session(session_id) for session_id in session_ids], _FIELDS)
        for session_id, (values, now_ms) in zip(session_ids, found, strict=True):
            agent_id, user_id, last_activity, expires_at = values
            if expires_at is None or int(expires_at) <= now_ms:
                absent.append(session_id)
            elif owner.id.encode() not in (agent_id, user_id):
                others.append(session_id)
            else:
                living.append(LiveSession(session_id, last_activity or b"0", expires_at))
        return living, absent, others

    async def _judge(self, session_ids: Sequence[str]) -> tuple[list[str], list[str], bool]:
        """Which live no more, which were never seen to, and whether one has come to life since it was read."""
        commands = [scripts.STATUS.command(self._keys.of(session_id), owner_id="") for session_id in session_ids]
        answers: list[Reply] = await self._redis.query(*commands) if commands else []
        gone, unknown, has_come = list[str](), list[str](), False
        for session_id, answer in zip(session_ids, answers, strict=True):
            match answer:
                case [b"expired", *_] | [b"lost"] | [b"unreadable"]:
                    gone.append(session_id)
                case [b"missing"]:
                    unknown.append(session_id)
                case [b"live", *_]:
                    has_come = True
                case _:
                    raise UnexpectedReply(repr(answer))
        return gone, unknown, has_come

    async def _wait_for(self, owner: Owner, session_ids: Sequence[str]) -> tuple[list[str], bool]:
        """Of ids that have no session yet those that will have none, and whether another is about to have one."""
        if not session_ids:
            return [], False
        listed_at, time = await self._redis.query(("ZMSCORE", owner.owner_index, *session_ids), ("TIME",))
        now_ms = ms_from_time_reply(time)
        listed = zip(session_ids, listed_at, strict=True)
        ages_ms = {session_id: now_ms - float(at_ms) for session_id, at_ms in listed if at_ms is not None}
        failed = await self._marked([session_id for session_id, age_ms in ages_ms.items() if age_ms > ABANDONED_MS])
        failed += [session_id for session_id in session_ids if session_id not in ages_ms]
        waited_for = [session_id for session_id in ages_ms if session_id not in failed]
        coming = [session_id for session_id in waited_for if ages_ms[session_id] <= self._wait_ms]
        await self._put_off(owner, waited_for, now_ms, LOOK_AGAIN_MS if coming else _LOOK_AGAIN_LATER_MS)
        return failed, bool(coming)

    async def _marked(self, session_ids: Sequence[str]) -> list[str]:
        """Those that still have no session; should its creation come after all, a mark refuses it (see Revocation)."""
        commands = [
            scripts.REVOKE.command(
                self._keys.of(session_id),
                id=session_id,
                agent_id=_NOBODY,
                user_id=_NOBODY,
                marker_lifetime_ms=REVOCATION_MARKER_MS,
            )
            for session_id in session_ids
        ]
        answers: list[Reply] = await self._redis.execute(*commands) if commands else []
        return [session_id for session_id, answer in zip(session_ids, answers, strict=True) if answer == [b"marked"]]

    async def _put_off(self, owner: Owner, session_ids: Sequence[str], now_ms: int, by_ms: int) -> None:
        """Look at them again by then. Whichever come to life, they were not active before now."""
        if session_ids:
            beside = self._keys.beside(owner.owner_index)
            await self._redis.execute(
                _moved(beside.ends, [(now_ms + by_ms, session_id) for session_id in session_ids]),
                _moved(beside.activity, [(now_ms, session_id) for session_id in session_ids]),
            )


def _moved(key: str, scores: Iterable[tuple[bytes | int, str]]) -> Command:
    """The command that gives ids other scores, as far as they are there."""
    return ("ZADD", key, "XX", *chain.from_iterable(scores))
