"""Agents' policies: the middle tier of timeouts, over the service's defaults and under what a request asks for.

A replica remembers of agents what policy they had, or that they had none, and never relies on that: a creation reads
the policy in its own round trip, and is begun anew where it was not the one supposed (see Store.create).
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from service.errors import AgentNotFound, AgentPolicyNotFound
from service.redis_client.client import RedisClient
from service.redis_client.errors import UnderReplicated, UnexpectedReply
from service.redis_client.scripts import Argument, Command
from service.sessions import scripts
from service.sessions.events import SessionEvents
from service.sessions.keys import Keys
from service.sessions.session import as_stored, minutes_from
from service.settings import Settings
from service.settings.sessions import TimeoutConfig

MAX_REMEMBERED = 30_000
"""Of how many agents: 180 bytes each, and 680 with a policy."""

_FIELDS = (b"timeoutMinutes", b"autoRenew", b"maxDurationMinutes", b"warningThresholdMinutes", b"updatedAt")


class Policy(NamedTuple):
    """The fields of a policy's hash as Redis holds them (see `keys`); None is what was not given."""

    timeout_minutes: bytes | None
    auto_renew: bytes | None
    max_duration_minutes: bytes | None
    warning_threshold_minutes: bytes | None
    updated_at: bytes | None

    @property
    def timeout(self) -> dict[str, bytes]:
        """The members that were given, by their names in TimeoutConfig."""
        members = zip(TimeoutConfig._fields, self[:-1], strict=True)
        return {name: value for name, value in members if value is not None}


NO_POLICY = Policy(None, None, None, None, None)


class AssumedPolicy(NamedTuple):
    """What a replica takes an agent's policy to be, and what that makes of its defaults, as it is stored."""

    policy: Policy
    timeout: dict[str, Argument]


class Policies:
    """Agents' policies in Redis. Every method that is awaited raises StoreUnavailable."""

    def __init__(self, redis: RedisClient, keys: Keys, events: SessionEvents, settings: Settings) -> None:
        self._redis = redis
        self._keys = keys
        self._events = events
        self._agents_must_be_known = settings.session_require_known_agent
        self._bounds = {
            "timeout_minutes": settings.timeout_bounds,
            "max_duration_minutes": settings.max_duration_bounds,
            "warning_threshold_minutes": settings.warning_threshold_bounds,
        }
        self._none = AssumedPolicy(NO_POLICY, {**as_stored(settings.default_timeout._asdict())})
        self._remembered: OrderedDict[str, AssumedPolicy] = OrderedDict()

    async def put(self, agent_id: str, members: Mapping[str, float | bool]) -> Policy:
        """Make these members of TimeoutConfig the agent's policy, in the place of any before."""
        given = dict.fromkeys(TimeoutConfig._fields, "") | as_stored(members)
        command = scripts.PUT_POLICY.command(_Key(self._keys.policy(agent_id)), **given)
        try:
            (answer,) = await self._redis.execute(command)
        except UnderReplicated:  # it is in force all the same
            self._events.policy_changed(agent_id, "put")
            raise
        match answer:
            case [b"put", values]:
                self._events.policy_changed(agent_id, "put")
                return policy_from(values)
            case _:
                raise UnexpectedReply(repr(answer))

    async def get(self, agent_id: str) -> Policy:
        """Raises AgentPolicyNotFound."""
        policy = await self._read(agent_id)
        if policy == NO_POLICY:
            raise AgentPolicyNotFound(agent_id)
        return policy

    async def delete(self, agent_id: str) -> None:
        """Raises AgentPolicyNotFound."""
        try:
            (deleted,) = await self._redis.execute(("DEL", self._keys.policy(agent_id)))
        except UnderReplicated:  # it is gone all the same
            self._events.policy_changed(agent_id, "deleted")
            raise
        if not deleted:
            raise AgentPolicyNotFound(agent_id)
        self._events.policy_changed(agent_id, "deleted")

    async def assumed(self, agent_id: str) -> AssumedPolicy:
        """What a session is to be created with, if it is still so. Raises AgentNotFound where agents must be known."""
        remembered = self._remembered.get(agent_id)
        if remembered is not None:
            self._remembered.move_to_end(agent_id)
            return remembered
        policy = await self._read(agent_id)
        if policy == NO_POLICY and self._agents_must_be_known:
            raise AgentNotFound(agent_id)
        return self.cache(agent_id, policy)

    def read_command(self, agent_id: str) -> Command:
        """The command whose reply `policy_from` takes."""
        return ("HMGET", self._keys.policy(agent_id), *_FIELDS)

    def cache(self, agent_id: str, policy: Policy) -> AssumedPolicy:
        """Where agents must be known, those without a policy are none to remember: they are looked for every time."""
        self._remembered.pop(agent_id, None)
        assumed = self._assumed_from(policy)
        if assumed is not self._none or not self._agents_must_be_known:
            self._remembered[agent_id] = assumed
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return assumed

    def _assumed_from(self, policy: Policy) -> AssumedPolicy:
        if policy == NO_POLICY:
            return self._none
        return AssumedPolicy(policy, {**self._none.timeout, **self._in_force(policy)})

    def _in_force(self, policy: Policy) -> dict[str, Argument]:
        """The members that were given, within the bounds of this replica: they may have been put under wider ones."""
        given = policy.timeout
        minutes = {
            name: bounds.clamp(minutes_from(given[name])) for name, bounds in self._bounds.items() if name in given
        }
        return {**given, **as_stored(minutes)}

    async def _read(self, agent_id: str) -> Policy:
        values, _ = await self._redis.read_hash(self._keys.policy(agent_id), _FIELDS)
        return policy_from(values)


def policy_from(values: Sequence[bytes | None]) -> Policy:
    """The policy whose fields have these values; without an `updatedAt` there is none."""
    return NO_POLICY if values[-1] is None else Policy._make(values)


class _Key(NamedTuple):
    policy: str
