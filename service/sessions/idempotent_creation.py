"""How a session comes to be that its client may ask for again: the first who comes with a record creates it.

Others with the same record may be told of the session as soon as it is there. So where a creation has to be begun anew
(see Creation) it is not taken back: it keeps its id, and the script puts right what is there. Nor is one that too few
replicas had in time: it is refused, and whoever repeats it is told of it once they have it.
"""

from service.errors import AgentNotFound, StoreUnavailable
from service.redis_client.errors import CommandRejected, ScriptCacheMiss, ScriptError, UnderReplicated
from service.redis_client.scripts import Command
from service.sessions import scripts
from service.sessions.creation import MOST_TRIES, Creation
from service.sessions.events import SessionEvents
from service.sessions.idempotency import (
    AlreadyCreated,
    FirstCreation,
    IdempotencyRecord,
    IdempotencyRecords,
    NewSession,
)
from service.sessions.keyed_lock import KeyedLock
from service.sessions.keys import Keys
from service.sessions.owner_index import OwnerIndex
from service.sessions.policies import Policies, Supposed
from service.sessions.session import Session, as_stored, new_session_id
from service.settings import Settings
from service.settings.idempotency import IdFormat


class RepeatableCreation:
    def __init__(
        self,
        keys: Keys,
        events: SessionEvents,
        policies: Policies,
        owner_indexes: OwnerIndex,
        creation: Creation,
        records: IdempotencyRecords,
        settings: Settings,
    ) -> None:
        self._keys = keys
        self._events = events
        self._policies = policies
        self._owner_index = owner_indexes
        self._creation = creation
        self._records = records
        self._retention_ms = settings.retention_ms
        self._id_format: IdFormat = settings.session_id_format
        self._locks = KeyedLock(settings.session_store_timeout_seconds)

    async def create(self, new_session: NewSession, record: IdempotencyRecord) -> Session | FirstCreation:
        """A session with its record, or whoever came first with that. Raises as Creation.create does.

        In a replica they take turns, at no cost of places under a cap; among replicas the script decides.
        """
        first = await self._records.first(record)
        if first is not None:
            return first
        try:
            async with self._locks.at(record.digest) as others_came_first:
                first = await self._records.first(record) if others_came_first else None
                return first or await self._create(new_session, record)
        except AlreadyCreated as other:
            return other.first
        except TimeoutError:
            raise StoreUnavailable("another request with the same Idempotency-Key was not answered in time") from None

    async def _create(self, new_session: NewSession, record: IdempotencyRecord) -> Session | FirstCreation:
        async def unless_another_came_first() -> None:
            first = await self._records.first(record)
            if first is not None:
                raise AlreadyCreated(first)

        await self._policies.supposed(new_session.agent_id)  # one that must be known and is not costs nobody a place
        session_id = record.shard + new_session_id(self._id_format)[2:]
        await self._creation.admit(session_id, new_session.agent_id, new_session.user_id, unless_another_came_first)
        for _ in range(MOST_TRIES):
            try:
                supposed = await self._policies.supposed(new_session.agent_id)
                creation = self._command(session_id, new_session, record, supposed)
                policy, answer = await self._creation.sent(
                    session_id, new_session.agent_id, new_session.user_id, creation
                )
            except ScriptCacheMiss:
                continue
            except (AgentNotFound, CommandRejected, ScriptError) as fault:
                if _has_made(fault):
                    self._events.created(session_id, new_session.agent_id, new_session.user_id)
                    raise
                await self._creation.taken_back(session_id, new_session.agent_id, new_session.user_id, record)
                raise
            match answer:
                case [b"repeated", first, fingerprint]:
                    await self._owner_index.remove(session_id, new_session.agent_id, new_session.user_id)
                    return FirstCreation(first.decode(), fingerprint.decode())
            session = await self._creation.session_of(session_id, new_session.agent_id, new_session.user_id, answer)
            if policy == supposed.policy:
                self._events.created(session_id, new_session.agent_id, new_session.user_id)
                return session
            self._policies.remember(new_session.agent_id, policy)
        await self._creation.taken_back(session_id, new_session.agent_id, new_session.user_id, record)
        raise StoreUnavailable(f"a session was to be created, and had to be begun anew, {MOST_TRIES} times")

    def _command(
        self, session_id: str, new_session: NewSession, record: IdempotencyRecord, supposed: Supposed
    ) -> Command:
        asked = as_stored(new_session.changes)
        return scripts.CREATE_ONCE.command(
            self._keys.with_record(session_id, record.digest),
            id=session_id,
            agent_id=new_session.agent_id,
            user_id=new_session.user_id,
            metadata=new_session.metadata,
            retention_ms=self._retention_ms,
            fingerprint=record.fingerprint,
            record_lifetime_ms=record.lifetime_ms,
            **{**supposed.timeout, **asked},
        )


def _has_made(fault: Exception) -> bool:
    """Whether the session lives, and only its replicas are behind."""
    return isinstance(fault, UnderReplicated) and fault.replies[-1][:1] == [b"live"]
