"""How a session comes to be that its client may ask for again: the first who comes with a record creates it.

Others with the same record may be told of the session as soon as it is there. So where a creation has to be begun anew
(see Creation) it is not taken back: it keeps its id, and the script puts right what is there. Nor is one that too few
replicas had in time: it is refused, and whoever repeats it is told of it once they have it.
"""

from service.errors import AgentNotFound, StoreUnavailable
from service.lanes.lane import ScriptFault, ScriptsForgotten, StoreRefused, Unreplicated
from service.life import scripts
from service.life.creation import MOST_TRIES, Creation
from service.life.keys import Keys
from service.life.lifecycle import Lifecycle
from service.life.lookups import Lookups
from service.life.policies import Policies, Supposed
from service.life.records import CameFirst, First, Record, Records, Wish
from service.life.sessions import IdFormat, Session, as_stored, new_session_id
from service.life.turns import Turns


class RepeatableCreation:
    def __init__(
        self,
        keys: Keys,
        lifecycle: Lifecycle,
        policies: Policies,
        lookups: Lookups,
        creation: Creation,
        records: Records,
        *,
        retention_ms: int,
        patience_seconds: float,
        id_format: IdFormat,
    ) -> None:
        self._keys = keys
        self._lifecycle = lifecycle
        self._policies = policies
        self._lookups = lookups
        self._creation = creation
        self._records = records
        self._retention_ms = retention_ms
        self._id_format: IdFormat = id_format
        self._turns = Turns(patience_seconds)

    async def create(self, wish: Wish, record: Record) -> Session | First:
        """A session with its record, or whoever came first with that. Raises as Creation.create does.

        In a replica they take turns, at no cost of places under a cap; among replicas the script decides.
        """
        first = await self._records.first(record)
        if first is not None:
            return first
        try:
            async with self._turns.at(record.digest) as others_came_first:
                first = await self._records.first(record) if others_came_first else None
                return first or await self._create(wish, record)
        except CameFirst as other:
            return other.first
        except TimeoutError:
            raise StoreUnavailable("another request with the same Idempotency-Key was not answered in time") from None

    async def _create(self, wish: Wish, record: Record) -> Session | First:
        async def unless_another_came_first() -> None:
            first = await self._records.first(record)
            if first is not None:
                raise CameFirst(first)

        await self._policies.supposed(wish.agent_id)  # one that must be known and is not costs nobody a place
        session_id = record.shard + new_session_id(self._id_format)[2:]
        await self._creation.admit(session_id, wish.agent_id, wish.user_id, unless_another_came_first)
        for _ in range(MOST_TRIES):
            try:
                supposed = await self._policies.supposed(wish.agent_id)
                creation = self._command(session_id, wish, record, supposed)
                policy, answer = await self._creation.sent(session_id, wish.agent_id, wish.user_id, creation)
            except ScriptsForgotten:
                continue
            except (AgentNotFound, StoreRefused, ScriptFault) as fault:
                if _has_made(fault):
                    self._lifecycle.created(session_id, wish.agent_id, wish.user_id)
                    raise
                await self._creation.taken_back(session_id, wish.agent_id, wish.user_id, record)
                raise
            match answer:
                case [b"repeated", first, fingerprint]:
                    await self._lookups.delist(session_id, wish.agent_id, wish.user_id)
                    return First(first.decode(), fingerprint.decode())
            session = await self._creation.session_of(session_id, wish.agent_id, wish.user_id, answer)
            if policy == supposed.policy:
                self._lifecycle.created(session_id, wish.agent_id, wish.user_id)
                return session
            self._policies.remember(wish.agent_id, policy)
        await self._creation.taken_back(session_id, wish.agent_id, wish.user_id, record)
        raise StoreUnavailable(f"a session was to be created, and had to be begun anew, {MOST_TRIES} times")

    def _command(self, session_id: str, wish: Wish, record: Record, supposed: Supposed) -> scripts.Command:
        asked = as_stored(wish.changes)
        return scripts.CREATE_ONCE.command(
            self._keys.with_record(session_id, record.digest),
            id=session_id,
            agent_id=wish.agent_id,
            user_id=wish.user_id,
            metadata=wish.metadata,
            retention_ms=self._retention_ms,
            fingerprint=record.fingerprint,
            record_life_ms=record.life_ms,
            **{**supposed.timeout, **asked},
        )


def _has_made(fault: Exception) -> bool:
    """Whether the session lives, and only its replicas are behind."""
    return isinstance(fault, Unreplicated) and fault.replies[-1][:1] == [b"live"]
