"""How a session comes to be: under its agent's policy, known to its lookups, or not at all."""

from collections.abc import Mapping, Sequence

from service.errors import SessionRevoked, StoreUnavailable
from service.lanes.lane import Lane, Reply, ScriptFault, ScriptsForgotten, StoreRefused
from service.life import scripts
from service.life.admission import Admission, Unless, whatever_happens
from service.life.answers import MISSING, refusal_of
from service.life.keys import Keys
from service.life.lifecycle import Lifecycle
from service.life.lookups import Lookups
from service.life.policies import Policies, Policy, policy_from
from service.life.records import Record
from service.life.scripts import Argument
from service.life.sessions import IdFormat, Session, as_stored, new_session_id, session_from

MOST_TRIES = 64
"""How often a creation is begun anew where its agent's policy, or Redis's scripts, keep changing under it."""


class Creation:
    def __init__(
        self,
        lane: Lane,
        keys: Keys,
        lifecycle: Lifecycle,
        policies: Policies,
        lookups: Lookups,
        admission: Admission | None,
        *,
        retention_ms: int,
        id_format: IdFormat,
    ) -> None:
        self._lane = lane
        self._keys = keys
        self._lifecycle = lifecycle
        self._policies = policies
        self._lookups = lookups
        self._admission = admission
        self._retention_ms = retention_ms
        self._id_format: IdFormat = id_format

    async def create(
        self, agent_id: str, user_id: str, changes: Mapping[str, float | bool], metadata: bytes
    ) -> Session:
        """See Store.create."""
        asked = as_stored(changes)
        for _ in range(MOST_TRIES):
            supposed = await self._policies.supposed(agent_id)
            try:
                policy, session = await self._create(agent_id, user_id, {**supposed.timeout, **asked}, metadata)
            except ScriptsForgotten:
                continue
            if policy == supposed.policy:
                self._lifecycle.created(session.id, agent_id, user_id)
                return session
            self._policies.remember(agent_id, policy)
            if await self.taken_back(session.id, agent_id, user_id) == MISSING:
                raise SessionRevoked(agent_id, user_id)
        raise StoreUnavailable(f"a session was to be created, and had to be taken back, {MOST_TRIES} times")

    async def admit(self, session_id: str, agent_id: str, user_id: str, unless: Unless = whatever_happens) -> None:
        """Where there are caps, list the id that is to come to life. Raises as Admission.admit does."""
        if self._admission is not None:
            await self._admission.admit(session_id, agent_id, user_id, unless)

    async def sent(
        self, session_id: str, agent_id: str, user_id: str, creation: scripts.Command
    ) -> tuple[Policy, Sequence[Reply]]:
        """The policy that is in force, and what the script answers, once lookups know the id that was admitted.

        Where Redis refuses any of it, none of it may stay: a session that its lookups do not know must not live.
        """
        enlisting: list[scripts.Command] = []
        if self._admission is None:
            lookups = (self._keys.agent(agent_id), self._keys.user(user_id))
            enlisting = [self._lookups.enlisting(lookup, session_id) for lookup in lookups]
        policy, *_, answer = await self._lane.in_order(self._policies.reading(agent_id), *enlisting, creation)
        return policy_from(policy), answer

    async def session_of(self, session_id: str, agent_id: str, user_id: str, answer: Sequence[Reply]) -> Session:
        """The session that the script answers with. Raises what it says else."""
        match answer:
            case [b"live", now_ms, values]:
                return session_from(session_id, values, now_ms)
            case [b"revoked"] | [b"missing"]:
                await self._lookups.delist(session_id, agent_id, user_id)
                raise SessionRevoked(agent_id, user_id)
            case _:
                raise refusal_of(session_id, answer)

    async def taken_back(self, session_id: str, agent_id: str, user_id: str, record: Record | None = None) -> Reply:
        """What was found in deleting a session whose id nobody was told: missing, it was revoked or never was."""
        try:
            (answer,) = await self._lane.change(self._deletion(session_id, record))
        except StoreUnavailable as error:
            self._lifecycle.left_behind(session_id, agent_id, user_id, error.why)
            raise
        await self._lookups.delist(session_id, agent_id, user_id)
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
        except (ScriptsForgotten, StoreRefused, ScriptFault):
            await self.taken_back(session_id, agent_id, user_id)
            raise
        return policy, await self.session_of(session_id, agent_id, user_id, answer)

    def _deletion(self, session_id: str, record: Record | None) -> scripts.Command:
        if record is None:
            return scripts.DELETE.command(self._keys.of(session_id), id=session_id)
        return scripts.TAKE_BACK.command(self._keys.with_record(session_id, record.digest), id=session_id)
