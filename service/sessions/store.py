"""The session store: one method per verb. Each reads the time and changes the session in one round trip to Redis."""

from collections.abc import Awaitable, Sequence

from service.errors import Contention, PreconditionFailed, SessionNotFound
from service.redis_client.client import Fields, Read, RedisClient, Reply
from service.redis_client.errors import ScriptError, UnderReplicated
from service.redis_client.scripts import Argument, Script
from service.sessions import scripts
from service.sessions.creation import SessionCreation
from service.sessions.events import SessionEvents
from service.sessions.idempotency import IdempotencyKey
from service.sessions.keyed_lock import KeyedLock
from service.sessions.keys import Keys
from service.sessions.metadata import MergePatch, apply_patch
from service.sessions.owner_index import OwnerIndex
from service.sessions.session import (
    LOST,
    CreatedSession,
    NewSession,
    Revisions,
    Session,
    as_stored,
    decode_owner,
    error_for_reply,
    is_issued_id,
    readable_session_from,
)
from service.settings import Settings
from service.settings.sessions import TimeoutConfig

MAX_ATTEMPTS = 64
"""How often a metadata change is attempted while other replicas change the session."""

_EXPIRES_AT = scripts.FIELDS.index(b"expiresAt")


class SessionStore:
    """Sessions in Redis. Every method raises StoreUnavailable if Redis cannot carry out its commands.

    Methods that take an id raise SessionNotFound and SessionExpired. With an `owner_id`, sessions of other users are
    not found; the owner `agent:<id>` is an agent. Methods that take `revisions` raise PreconditionFailed if the
    session is at none of them.
    """

    def __init__(
        self,
        client: RedisClient,
        keys: Keys,
        events: SessionEvents,
        owner_index: OwnerIndex,
        creation: SessionCreation,
        settings: Settings,
    ) -> None:
        self._client = client
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
        self._events.creation_replayed(session.id)
        return CreatedSession(session, is_replay=True)

    async def get(self, session_id: str, owner_id: str | None = None) -> Session:
        """Return the session. This is not an activity."""
        _require_issued(session_id)
        read = await _read_if_hash(self._client, self._keys.session(session_id), scripts.FIELDS)
        if read is None:
            raise _unreadable(session_id, self._events)
        values, now_ms = read
        if values[_EXPIRES_AT] is not None:
            session = readable_session(session_id, values, now_ms, self._events)
            if session.time_remaining_ms > 0 and (owner_id is None or session.is_owned_by(owner_id)):
                return session
        command = scripts.STATUS.command(self._keys.of(session_id), owner_id=owner_id or "")
        reply = await self._reply(session_id, self._client.query(command))
        return self._session(session_id, reply)

    async def heartbeat(self, session_id: str, owner_id: str | None = None) -> Session:
        """Record an activity. With autoRenew, renew the session unless it is at its maximum duration."""
        session = await self._run(scripts.HEARTBEAT, session_id, owner_id, retention_ms=self._retention_ms)
        if session.has_auto_renew and session.stored.renewed_at == session.stored.last_activity:
            self._events.renewed_by_activity(session_id)
        return session

    async def renew(self, session_id: str, owner_id: str | None = None) -> Session:
        """Extend the session by a full timeout from now. Raises RenewalFailed at its maximum duration."""
        session = await self._run(scripts.RENEW, session_id, owner_id, retention_ms=self._retention_ms)
        self._events.renewed_manually(session_id)
        return session

    async def update_timeout(
        self,
        session_id: str,
        changes: dict[str, float | bool],
        revisions: Revisions | None = None,
        owner_id: str | None = None,
    ) -> Session:
        """Merge members of TimeoutConfig into the session's, as `merge_timeouts` does.

        Raises InvalidTimeoutConfig if the session would expire at once.
        """
        unchanged: dict[str, Argument] = dict.fromkeys(TimeoutConfig._fields, "")
        session = await self._run(
            scripts.UPDATE_TIMEOUT,
            session_id,
            owner_id,
            retention_ms=self._retention_ms,
            revisions=b"" if revisions is None else b" %b " % b" ".join(revisions),
            **unchanged | as_stored(changes),
        )
        self._events.changed(session_id, "timeout")
        if "max_duration_minutes" in changes or "timeout_minutes" in changes:
            await self._owner_index.extend_lifetime(session)
        await self._owner_index.lower_known_expiry(session)
        return session

    async def update_metadata(
        self, session_id: str, patch: MergePatch, revisions: Revisions | None = None, owner_id: str | None = None
    ) -> Session:
        """Merge a patch into the metadata, again if the session changed meanwhile and `revisions` allow it.

        Raises InvalidRequest if the result is not valid metadata, and Contention if the session keeps changing.
        """
        session = await self.get(session_id, owner_id)
        try:
            async with self._locks.hold(session_id):
                return await self._update_metadata(session, patch, revisions)
        except TimeoutError:
            raise Contention(session_id) from None

    async def delete(self, session_id: str, owner_id: str | None = None) -> None:
        """Delete the session, so that it is unknown from now on."""
        _require_issued(session_id)
        command = scripts.DELETE.command(self._keys.of(session_id), id=session_id, owner_id=owner_id or "")
        try:
            (reply,) = await self._client.execute(command)
        except UnderReplicated as error:  # the session was deleted
            match error.replies[-1]:  # the first reply may be that to ASKING, while a Cluster moves the slot
                case [b"deleted", agent_id, user_id]:
                    self._events.ended(session_id, "deleted", decode_owner(agent_id), decode_owner(user_id))
                    self._events.index_entry_left(
                        session_id, decode_owner(agent_id), decode_owner(user_id), error.cause
                    )
            raise
        match reply:
            case [b"deleted", agent_id, user_id]:
                owners = decode_owner(agent_id), decode_owner(user_id)
                self._events.ended(session_id, "deleted", *owners)
                await self._owner_index.remove(session_id, *owners)
            case _:
                raise self._error(session_id, reply)

    async def _update_metadata(self, session: Session, patch: MergePatch, revisions: Revisions | None) -> Session:
        keys = self._keys.of(session.id)
        for _ in range(MAX_ATTEMPTS):
            if revisions is not None and session.stored.revision not in revisions:
                raise PreconditionFailed(session.id, int(session.stored.revision))
            metadata = apply_patch(session.metadata, patch)
            command = scripts.UPDATE_METADATA.command(
                keys, id=session.id, revision=session.stored.revision, metadata=metadata
            )
            reply = await self._reply(session.id, self._client.execute(command))
            match reply:
                case [b"changed", now_ms, values]:
                    session = readable_session(session.id, values, now_ms, self._events)
                case _:
                    session = self._session(session.id, reply)
                    self._events.changed(session.id, "metadata")
                    return session
        raise Contention(session.id)

    async def _run(self, script: Script, session_id: str, owner_id: str | None, **arguments: Argument) -> Session:
        _require_issued(session_id)
        command = script.command(self._keys.of(session_id), id=session_id, owner_id=owner_id or "", **arguments)
        reply = await self._reply(session_id, self._client.execute(command))
        return self._session(session_id, reply)

    async def _reply(self, session_id: str, replies: Awaitable[Sequence[Reply]]) -> Reply:
        return await readable_reply(session_id, replies, self._client, self._keys, self._events)

    def _session(self, session_id: str, reply: Sequence[Reply]) -> Session:
        match reply:
            case [b"live", now_ms, values]:
                return readable_session(session_id, values, now_ms, self._events)
            case _:
                raise self._error(session_id, reply)

    def _error(self, session_id: str, reply: Sequence[Reply]) -> Exception:
        if reply[:1] == [b"unreadable"]:
            return _unreadable(session_id, self._events)
        if reply == LOST:
            self._events.lost_session_requested(session_id)
        try:
            return error_for_reply(session_id, reply)
        except ValueError:  # a time in the reply is no number
            return _unreadable(session_id, self._events)


async def readable_reply(
    session_id: str, replies: Awaitable[Sequence[Reply]], client: RedisClient, keys: Keys, events: SessionEvents
) -> Reply:
    """Return the reply of a script. Raises SessionNotFound if the script failed because of an unreadable record."""
    try:
        (reply,) = await replies
    except ScriptError:
        session = await _read_if_hash(client, keys.session(session_id), scripts.FIELDS)
        tombstone = await _read_if_hash(client, keys.of(session_id).tombstone, (b"expiresAt",))
        if _is_readable(session_id, session) and _has_expiry(tombstone):
            raise
        raise _unreadable(session_id, events) from None
    return reply


def readable_session(session_id: str, values: Sequence[bytes | None], now_ms: int, events: SessionEvents) -> Session:
    """Build a session from field values. Raises SessionNotFound if one is missing or unreadable."""
    session = readable_session_from(session_id, values, now_ms)
    if session is None:
        raise _unreadable(session_id, events)
    return session


class UnreadableSession(SessionNotFound):
    """The record of the session is damaged, for example after a manual change. Clients do not find the session."""


def _unreadable(session_id: str, events: SessionEvents) -> UnreadableSession:
    """Return the error for a session with an unreadable record, for example after a manual change, and log it once."""
    events.record_unreadable(session_id)
    return UnreadableSession(session_id)


async def _read_if_hash(client: RedisClient, key: str, fields: Fields) -> Read | None:
    try:
        return await client.read_hash(key, fields)
    except ScriptError:
        return None


def _is_readable(session_id: str, read: Read | None) -> bool:
    if read is None:
        return False
    values, now_ms = read
    return values[_EXPIRES_AT] is None or readable_session_from(session_id, values, now_ms) is not None


def _has_expiry(tombstone: Read | None) -> bool:
    return tombstone is not None and (tombstone[0][0] or b"0").isdigit()


def _require_issued(session_id: str) -> None:
    if not is_issued_id(session_id):
        raise SessionNotFound(session_id)
