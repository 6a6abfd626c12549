"""Create sessions under their agent's policy, within the caps, and once per Idempotency-Key."""

from collections.abc import Sequence
from typing import NamedTuple

from service.errors import AgentNotFound, IdempotencyKeyReused, SessionRevoked, StoreUnavailable
from service.redis_client.client import RedisClient, Reply
from service.redis_client.errors import CommandRejected, ScriptCacheMiss, ScriptError, UnderReplicated
from service.redis_client.scripts import Argument, Command
from service.sessions import scripts
from service.sessions.cap_enforcer import CapEnforcer
from service.sessions.events import SessionEvents
from service.sessions.idempotency import (
    AlreadyCreated,
    FirstCreation,
    IdempotencyKey,
    IdempotencyRecord,
    IdempotencyRecords,
)
from service.sessions.keyed_lock import KeyedLock
from service.sessions.keys import Keys
from service.sessions.owner_index import OwnerIndex
from service.sessions.policies import AssumedPolicy, Policies, Policy, merge_timeouts, policy_from
from service.sessions.session import (
    MISSING,
    NewSession,
    Session,
    as_stored,
    error_for_reply,
    new_session_id,
    session_from,
)
from service.settings import Settings

MAX_ATTEMPTS = 64
"""How often a creation is attempted while the agent's policy or Redis's script cache keeps changing."""


class Draft(NamedTuple):
    """A session under creation: an id that may be used, the request and, with an Idempotency-Key, its record."""

    session_id: str
    request: NewSession
    record: IdempotencyRecord | None


class SessionCreation:
    """Creates sessions.

    A session created under an outdated policy is deleted, and the creation starts again with another id. With an
    Idempotency-Key it keeps its id, because other requests may already have returned it. create.lua then corrects it.
    """

    def __init__(
        self,
        client: RedisClient,
        keys: Keys,
        events: SessionEvents,
        policies: Policies,
        owner_index: OwnerIndex,
        cap_enforcer: CapEnforcer | None,
        records: IdempotencyRecords,
        settings: Settings,
    ) -> None:
        self._client = client
        self._keys = keys
        self._events = events
        self._policies = policies
        self._owner_index = owner_index
        self._cap_enforcer = cap_enforcer
        self._records = records
        self._retention_ms = settings.retention_ms
        self._id_format = settings.session_id_format
        self._locks = KeyedLock(settings.session_store_timeout_seconds)

    async def create(self, request: NewSession, idempotency_key: IdempotencyKey | None) -> Session | FirstCreation:
        """Create a session, or return the first creation with the same key. Raises as SessionStore.create does."""
        if idempotency_key is None:
            return await self._create(request, None)
        record = self._records.record_of(idempotency_key, request)
        outcome = await self._records.first(record) or await self._create_in_turn(request, record)
        if isinstance(outcome, FirstCreation):
            if outcome.fingerprint != record.fingerprint:
                raise IdempotencyKeyReused
            await self._records.await_replication(record)
        return outcome

    async def _create_in_turn(self, request: NewSession, record: IdempotencyRecord) -> Session | FirstCreation:
        """Let one request per key and replica create, so that the others do not take places under a cap."""
        try:
            async with self._locks.hold(record.digest) as has_waited:
                first = await self._records.first(record) if has_waited else None
                return first or await self._create(request, record)
        except AlreadyCreated as other:
            return other.first
        except TimeoutError:
            raise StoreUnavailable("another request with the same Idempotency-Key was not answered in time") from None

    async def _create(self, request: NewSession, record: IdempotencyRecord | None) -> Session | FirstCreation:
        draft: Draft | None = None
        for _ in range(MAX_ATTEMPTS):
            try:
                assumed = await self._policies.assumed(request.agent_id)
                draft = draft or await self._admit(request, record)
                policy, reply = await self._send(draft, assumed)
            except ScriptCacheMiss:
                draft = await self._after_cache_miss(draft)
                continue
            except (AgentNotFound, CommandRejected, ScriptError) as error:
                await self._give_up(draft, error)
                raise
            match reply:
                case [b"already_created", session_id, fingerprint]:
                    await self._owner_index.remove(draft.session_id, request.agent_id, request.user_id)
                    return FirstCreation(session_id.decode(), fingerprint.decode())
            session = await self._session_from(draft, reply)
            if policy == assumed.policy:
                self._events.created(session.id, request.agent_id, request.user_id)
                return session
            self._policies.cache(request.agent_id, policy)
            draft = await self._after_policy_change(draft)
        if draft is not None:
            await self._delete(draft)
        raise StoreUnavailable(f"the agent's policy or the script cache changed during all of {MAX_ATTEMPTS} attempts")

    async def _admit(self, request: NewSession, record: IdempotencyRecord | None) -> Draft:
        """Choose an id and, under caps, add it to the owner indexes. Raises as CapEnforcer.admit does."""

        async def raise_if_created() -> None:
            first = None if record is None else await self._records.first(record)
            if first is not None:
                raise AlreadyCreated(first)

        session_id = new_session_id(self._id_format)
        if record is not None:
            session_id = record.shard + session_id[2:]
        if self._cap_enforcer is not None:
            await self._cap_enforcer.admit(session_id, request, raise_if_created)
        return Draft(session_id, request, record)

    async def _send(self, draft: Draft, assumed: AssumedPolicy) -> tuple[Policy, Sequence[Reply]]:
        """Return the policy in force and the reply of create.lua, in one round trip."""
        agent_id, user_id = draft.request.agent_id, draft.request.user_id
        additions: list[Command] = []
        if self._cap_enforcer is None:
            owner_indexes = (self._keys.agent(agent_id), self._keys.user(user_id))
            additions = [self._owner_index.add_command(owner_index, draft.session_id) for owner_index in owner_indexes]
        policy, *_, reply = await self._client.execute_ordered(
            self._policies.read_command(agent_id), *additions, self._create_command(draft, assumed)
        )
        return policy_from(policy), reply

    def _create_command(self, draft: Draft, assumed: AssumedPolicy) -> Command:
        session_id, request, record = draft
        arguments: dict[str, Argument] = {
            "id": session_id,
            "agent_id": request.agent_id,
            "user_id": request.user_id,
            "metadata": request.metadata,
            "retention_ms": self._retention_ms,
            **as_stored(merge_timeouts(assumed.timeout, request.timeout)),
        }
        if record is None:
            return scripts.CREATE.command(self._keys.of(session_id), **arguments)
        return scripts.CREATE_WITH_RECORD.command(
            self._keys.with_record(session_id, record.digest),
            fingerprint=record.fingerprint,
            record_lifetime_ms=record.lifetime_ms,
            **arguments,
        )

    async def _session_from(self, draft: Draft, reply: Sequence[Reply]) -> Session:
        match reply:
            case [b"live", now_ms, values]:
                return session_from(draft.session_id, values, now_ms)
            case [b"revoked"] | [b"missing"]:
                await self._owner_index.remove(draft.session_id, draft.request.agent_id, draft.request.user_id)
                raise SessionRevoked(draft.request.agent_id, draft.request.user_id)
            case _:
                raise error_for_reply(draft.session_id, reply)

    async def _after_cache_miss(self, draft: Draft | None) -> Draft | None:
        """Return the draft to attempt again. Without a key, delete it: part of the batch may have run."""
        if draft is None or draft.record is not None:
            return draft
        await self._delete(draft)
        return None

    async def _after_policy_change(self, draft: Draft) -> Draft | None:
        """Return the draft to attempt again. Without a key, delete it and start with another id."""
        if draft.record is not None:
            return draft
        if await self._delete(draft) == MISSING:
            raise SessionRevoked(draft.request.agent_id, draft.request.user_id)
        return None

    async def _give_up(self, draft: Draft | None, error: Exception) -> None:
        """Delete the session. Keep it if only replication failed and a request with the same key can return it."""
        if draft is None:
            return
        if draft.record is not None and isinstance(error, UnderReplicated) and error.replies[-1][:1] == [b"live"]:
            self._events.created(draft.session_id, draft.request.agent_id, draft.request.user_id)
        else:
            await self._delete(draft)

    async def _delete(self, draft: Draft) -> Reply:
        """Delete a session that no client knows, and return the script's reply: `missing` if others ended it first."""
        session_id, request, record = draft
        if record is None:
            command = scripts.DELETE.command(self._keys.of(session_id), id=session_id, owner_id="")
        else:
            keys = self._keys.with_record(session_id, record.digest)
            command = scripts.DELETE_WITH_RECORD.command(keys, id=session_id, owner_id="")
        try:
            (reply,) = await self._client.execute(command)
        except StoreUnavailable as error:
            self._events.index_entry_left(session_id, request.agent_id, request.user_id, error.cause)
            raise
        await self._owner_index.remove(session_id, request.agent_id, request.user_id)
        return reply
