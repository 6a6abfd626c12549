"""How a session comes to be: under its agent's policy, known to its lookups, or not at all."""

from collections.abc import Mapping, Sequence

from service.errors import SessionRevoked, StoreUnavailable
from service.redis_client.client import RedisClient, Reply
from service.redis_client.errors import CommandRejected, ScriptCacheMiss, ScriptError
from service.redis_client.scripts import Argument, Command
from service.sessions import scripts
from service.sessions.cap_enforcer import CapEnforcer, Unless, whatever_happens
from service.sessions.events import SessionEvents
from service.sessions.idempotency import IdempotencyRecord
from service.sessions.keys import Keys
from service.sessions.owner_index import OwnerIndex
from service.sessions.policies import Policies, Policy, policy_from
from service.sessions.replies import MISSING, error_for_reply
from service.sessions.session import Session, as_stored, new_session_id, session_from
from service.settings import Settings
from service.settings.idempotency import IdFormat

MOST_TRIES = 64
"""How often a creation is begun anew where its agent's policy, or Redis's scripts, keep changing under it."""


class Creation:
    def __init__(
        self,
        redis: RedisClient,
        keys: Keys,
        events: SessionEvents,
        policies: Policies,
        owner_indexes: OwnerIndex,
        cap_enforcer: CapEnforcer | None,
        settings: Settings,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._events = events
        self._policies = policies
        self._owner_index = owner_indexes
        self._cap_enforcer = cap_enforcer
        self._retention_ms = settings.retention_ms
        self._id_format: IdFormat = settings.session_id_format

    async def create(
        self, agent_id: str, user_id: str, changes: Mapping[str, float | bool], metadata: bytes
    ) -> Session:
        """See Store.create."""
        asked = as_stored(changes)
        for _ in range(MOST_TRIES):
            supposed = await self._policies.supposed(agent_id)
            try:
                policy, session = await self._create(agent_id, user_id, {**supposed.timeout, **asked}, metadata)
            except ScriptCacheMiss:
                continue
            if policy == supposed.policy:
                self._events.created(session.id, agent_id, user_id)
                return session
            self._policies.remember(agent_id, policy)
            if await self.taken_back(session.id, agent_id, user_id) == MISSING:
                raise SessionRevoked(agent_id, user_id)
        raise StoreUnavailable(f"a session was to be created, and had to be taken back, {MOST_TRIES} times")

    async def admit(self, session_id: str, agent_id: str, user_id: str, unless: Unless = whatever_happens) -> None:
        """Where there are caps, list the id that is to come to life. Raises as Admission.admit does."""
        if self._cap_enforcer is not None:
            await self._cap_enforcer.admit(session_id, agent_id, user_id, unless)

    async def sent(
        self, session_id: str, agent_id: str, user_id: str, creation: Command
    ) -> tuple[Policy, Sequence[Reply]]:
        """The policy that is in force, and what the script answers, once lookups know the id that was admitted.

        Where Redis refuses any of it, none of it may stay: a session that its lookups do not know must not live.
        """
        add_command: list[Command] = []
        if self._cap_enforcer is None:
            owner_indexes = (self._keys.agent(agent_id), self._keys.user(user_id))
            add_command = [self._owner_index.add_command(owner_index, session_id) for owner_index in owner_indexes]
        policy, *_, answer = await self._redis.execute_ordered(self._policies.reading(agent_id), *add_command, creation)
        return policy_from(policy), answer

    async def session_of(self, session_id: str, agent_id: str, user_id: str, answer: Sequence[Reply]) -> Session:
        """The session that the script answers with. Raises what it says else."""
        match answer:
            case [b"live", now_ms, values]:
                return session_from(session_id, values, now_ms)
            case [b"revoked"] | [b"missing"]:
                await self._owner_index.remove(session_id, agent_id, user_id)
                raise SessionRevoked(agent_id, user_id)
            case _:
                raise error_for_reply(session_id, answer)

    async def taken_back(
        self, session_id: str, agent_id: str, user_id: str, record: IdempotencyRecord | None = None
    ) -> Reply:
        """What was found in deleting a session whose id nobody was told: missing, it was revoked or never was."""
        try:
            (answer,) = await self._redis.execute(self._deletion(session_id, record))
        except StoreUnavailable as error:
            self._events.left_behind(session_id, agent_id, user_id, error.cause)
            raise
        await self._owner_index.remove(session_id, agent_id, user_id)
        return answer

    async def _create(
        self, agent_id: str, user_id: str, config: dict[str, Argument], metadata: bytes
    ) -> tuple[Policy, Session]:
        """A session, and the policy that was in force."""
        session_id = new_session_id(self._id_format)
        creation = scripts.CREATE.command(
            self._keys.of(session_id),
            id=session_id,
            agent_id=agent_id,
            user_id=user_id,
            metadata=metadata,
            retention_ms=self._retention_ms,
            **config,
        )
        await self.admit(session_id, agent_id, user_id)
        try:
            policy, answer = await self.sent(session_id, agent_id, user_id, creation)
        except (ScriptCacheMiss, CommandRejected, ScriptError):
            await self.taken_back(session_id, agent_id, user_id)
            raise
        return policy, await self.session_of(session_id, agent_id, user_id, answer)

    def _deletion(self, session_id: str, record: IdempotencyRecord | None) -> Command:
        if record is None:
            return scripts.DELETE.command(self._keys.of(session_id), id=session_id, owner_id="")
        return scripts.TAKE_BACK.command(self._keys.with_record(session_id, record.digest), id=session_id, owner_id="")
