"""The life of a session in Redis. Each method is one verb, judged by Redis's clock in the round trip that does it."""

from collections.abc import Sequence
from typing import cast

from service.errors import Contention, PreconditionFailed, SessionNotFound
from service.redis_client.client import RedisClient, Reply
from service.redis_client.errors import UnderReplicated
from service.redis_client.scripts import Argument, Script
from service.sessions import scripts
from service.sessions.creation import SessionCreation
from service.sessions.events import SessionEvents
from service.sessions.idempotency import IdempotencyKey
from service.sessions.keyed_lock import KeyedLock
from service.sessions.keys import Keys
from service.sessions.metadata import Patch, patched
from service.sessions.owner_index import OwnerIndex
from service.sessions.replies import LOST, error_for_reply
from service.sessions.session import (
    CreatedSession,
    NewSession,
    Revisions,
    Session,
    as_stored,
    is_issued_id,
    session_from,
)
from service.settings import Settings
from service.settings.sessions import TimeoutConfig

MAX_ATTEMPTS = 64
"""How often a metadata change is attempted while other replicas change the session."""

_EXPIRES_AT = scripts.FIELDS.index(b"expiresAt")


class SessionStore:
    """Sessions in Redis. Every method raises StoreUnavailable when Redis cannot carry out its commands.

    Methods that take an id raise SessionNotFound and SessionExpired. With an `owner_id`, sessions of other users are
    not found. Methods that take `revisions` raise PreconditionFailed if the session is at none of them.
    """

    def __init__(
        self,
        redis: RedisClient,
        keys: Keys,
        events: SessionEvents,
        owner_index: OwnerIndex,
        creation: SessionCreation,
        settings: Settings,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._events = events
        self._owner_index = owner_index
        self._creation = creation
        self._retention_ms = settings.retention_ms
        self._locks = KeyedLock(settings.session_store_timeout_seconds)

    async def create(self, request: NewSession, idempotency_key: IdempotencyKey | None = None) -> CreatedSession:
        """Create a session with the timeouts of the request, then of the agent's policy, then of the settings.

        With a key that was used before, return the session of the first creation in its current state. Raises
        IdempotencyKeyReused if that request was different, and SessionNotFound or SessionExpired if the session ended.

        Raises AgentNotFound, SessionLimitReached, CreationContention, and SessionRevoked if a bulk revocation ended the
        session before it was returned.
        """
        outcome = await self._creation.create(request, idempotency_key)
        if isinstance(outcome, Session):
            return CreatedSession(outcome, is_replay=False)
        session = await self.get(outcome.session_id)
        self._events.creation_repeated(session.id)
        return CreatedSession(session, is_replay=True)

    async def get(self, session_id: str, owner_id: str | None = None) -> Session:
        """Return the session. Does not count as activity."""
        _require_issued(session_id)
        values, now_ms = await self._redis.read_hash(self._keys.session(session_id), scripts.FIELDS)
        if values[_EXPIRES_AT] is not None:
            session = session_from(session_id, cast(Sequence[bytes], values), now_ms)
            if session.time_remaining_ms > 0 and (owner_id is None or owner_id == session.user_id):
                return session
        command = scripts.STATUS.command(self._keys.of(session_id), owner_id=owner_id or "")
        (answer,) = await self._redis.query(command)
        return self._session(session_id, answer)

    async def heartbeat(self, session_id: str, owner_id: str | None = None) -> Session:
        """The session after an activity: renewed too where it renews itself and has time left to gain."""
        session = await self._change(scripts.HEARTBEAT, session_id, owner_id, retention_ms=self._retention_ms)
        if session.renews_itself and session.stored.renewed_at == session.stored.last_activity:
            self._events.renewed_by_activity(session_id)
        return session

    async def renew(self, session_id: str, owner_id: str | None = None) -> Session:
        """The session, extended to a full timeout from now. Raises RenewalFailed at its maximum duration."""
        session = await self._change(scripts.RENEW, session_id, owner_id, retention_ms=self._retention_ms)
        self._events.renewed_by_hand(session_id)
        return session

    async def update_timeout(
        self,
        session_id: str,
        changes: dict[str, float | bool],
        revisions: Revisions | None = None,
        owner_id: str | None = None,
    ) -> Session:
        """Merge `changes`, members of TimeoutConfig. Raises InvalidTimeoutConfig if that would expire the session."""
        unchanged: dict[str, Argument] = dict.fromkeys(TimeoutConfig._fields, "")
        session = await self._change(
            scripts.UPDATE_TIMEOUT,
            session_id,
            owner_id,
            retention_ms=self._retention_ms,
            revisions=b"" if revisions is None else b" %b " % b" ".join(revisions),
            **unchanged | as_stored(changes),
        )
        self._events.changed(session_id, "timeout")
        if "max_duration_minutes" in changes:
            await self._owner_index.prolong(session)
        await self._owner_index.tell_end(session)
        return session

    async def update_metadata(
        self, session_id: str, patch: Patch, revisions: Revisions | None = None, owner_id: str | None = None
    ) -> Session:
        """The session with `patch` merged into its metadata. Raises InvalidRequest where that cannot be stored.

        Where another change comes between, it is merged anew over that, if `revisions` let it. Raises Contention where
        that has no end.
        """
        session = await self.get(session_id, owner_id)
        try:
            async with self._locks.at(session_id):
                return await self._annotate(session, patch, revisions)
        except TimeoutError:
            raise Contention(session_id) from None

    async def delete(self, session_id: str, owner_id: str | None = None) -> None:
        _require_issued(session_id)
        command = scripts.DELETE.command(self._keys.of(session_id), id=session_id, owner_id=owner_id or "")
        try:
            (answer,) = await self._redis.execute(command)
        except UnderReplicated as fault:  # it has ended all the same
            match fault.replies[-1]:  # in front of it, where a Cluster moves a shard, is the reply to ASKING
                case [b"deleted", agent_id, user_id]:
                    self._events.ended(session_id, "deleted", agent_id.decode(), user_id.decode())
                    self._events.left_behind(session_id, agent_id.decode(), user_id.decode(), fault.cause)
            raise
        match answer:
            case [b"deleted", agent_id, user_id]:
                self._events.ended(session_id, "deleted", agent_id.decode(), user_id.decode())
                await self._owner_index.remove(session_id, agent_id.decode(), user_id.decode())
            case _:
                raise self._refusal(session_id, answer)

    async def _annotate(self, session: Session, patch: Patch, revisions: Revisions | None) -> Session:
        keys = self._keys.of(session.id)
        for _ in range(MAX_ATTEMPTS):
            if revisions is not None and session.stored.revision not in revisions:
                raise PreconditionFailed(session.id, int(session.stored.revision))
            metadata = patched(session.metadata, patch)
            command = scripts.UPDATE_METADATA.command(keys, revision=session.stored.revision, metadata=metadata)
            (answer,) = await self._redis.execute(command)
            match answer:
                case [b"changed", now_ms, values]:
                    session = session_from(session.id, values, now_ms)
                case _:
                    session = self._session(session.id, answer)
                    self._events.changed(session.id, "metadata")
                    return session
        raise Contention(session.id)

    async def _change(self, script: Script, session_id: str, owner_id: str | None, **arguments: Argument) -> Session:
        _require_issued(session_id)
        command = script.command(self._keys.of(session_id), id=session_id, owner_id=owner_id or "", **arguments)
        (answer,) = await self._redis.execute(command)
        return self._session(session_id, answer)

    def _session(self, session_id: str, answer: Sequence[Reply]) -> Session:
        match answer:
            case [b"live", now_ms, values]:
                return session_from(session_id, values, now_ms)
            case _:
                raise self._refusal(session_id, answer)

    def _refusal(self, session_id: str, answer: Sequence[Reply]) -> Exception:
        if answer == LOST:
            self._events.lost_met(session_id)
        return error_for_reply(session_id, answer)


def _require_issued(session_id: str) -> None:
    if not is_issued_id(session_id):
        raise SessionNotFound(session_id)
