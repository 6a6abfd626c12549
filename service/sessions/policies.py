"""Agents' timeout policies: they override the settings, and a request for a session overrides them."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from service.errors import AgentNotFound, AgentPolicyNotFound
from service.redis_client.client import RedisClient
from service.redis_client.errors import UnderReplicated, UnexpectedReply
from service.redis_client.scripts import Command
from service.sessions import scripts
from service.sessions.events import SessionEvents
from service.sessions.keys import Keys, PolicyKeys
from service.sessions.session import as_stored, is_readable_policy, minutes_from
from service.settings import Settings
from service.settings.sessions import TimeoutConfig

MAX_CACHED_AGENTS = 30_000
"""An agent takes 180 bytes of memory without a policy and 680 with one."""

_FIELDS = (b"timeoutMinutes", b"autoRenew", b"maxDurationMinutes", b"warningThresholdMinutes", b"updatedAt")


class Policy(NamedTuple):
    """The fields of a policy's hash as stored. A member that the policy does not set is None."""

    timeout_minutes: bytes | None
    auto_renew: bytes | None
    max_duration_minutes: bytes | None
    warning_threshold_minutes: bytes | None
    updated_at: bytes | None

    @property
    def timeout(self) -> dict[str, bytes]:
        """The members that the policy sets, by their names in TimeoutConfig."""
        members = zip(TimeoutConfig._fields, self[:-1], strict=True)
        return {name: value for name, value in members if value is not None}


NO_POLICY = Policy(None, None, None, None, None)


Timeouts = Mapping[str, float | bool]
"""Members of TimeoutConfig."""


class AssumedPolicy(NamedTuple):
    """An agent's policy, possibly outdated, and all members of TimeoutConfig that result from it and the settings."""

    policy: Policy
    timeout: Timeouts


class Policies:
    """Agents' policies in Redis, and a cache of them. Awaited methods raise StoreUnavailable.

    The cache only saves a round trip: a creation reads the policy in its own round trip and compares it.
    """

    def __init__(self, client: RedisClient, keys: Keys, events: SessionEvents, settings: Settings) -> None:
        self._client = client
        self._keys = keys
        self._events = events
        self._requires_known_agent = settings.session_require_known_agent
        self._bounds = {
            "timeout_minutes": settings.timeout_bounds,
            "max_duration_minutes": settings.max_duration_bounds,
            "warning_threshold_minutes": settings.warning_threshold_bounds,
        }
        self._without_policy = AssumedPolicy(NO_POLICY, settings.default_timeout._asdict())
        self._cache: OrderedDict[str, AssumedPolicy] = OrderedDict()

    async def put(self, agent_id: str, members: Timeouts) -> Policy:
        """Replace the agent's policy by these members of TimeoutConfig."""
        arguments = dict.fromkeys(TimeoutConfig._fields, "") | as_stored(members)
        command = scripts.PUT_POLICY.command(PolicyKeys(self._keys.policy(agent_id)), **arguments)
        try:
            (reply,) = await self._client.execute(command)
        except UnderReplicated:  # the policy was written
            self._events.policy_changed(agent_id, "put")
            raise
        match reply:
            case [b"put", values]:
                self._events.policy_changed(agent_id, "put")
                return policy_from(values)
            case _:
                raise UnexpectedReply(repr(reply))

    async def get(self, agent_id: str) -> Policy:
        """Read a policy. Raises AgentPolicyNotFound."""
        policy = await self._read(agent_id)
        if policy == NO_POLICY:
            raise AgentPolicyNotFound(agent_id)
        return policy

    async def delete(self, agent_id: str) -> None:
        """Delete a policy. Raises AgentPolicyNotFound."""
        try:
            (deleted,) = await self._client.execute(("DEL", self._keys.policy(agent_id)))
        except UnderReplicated:  # the policy was deleted
            self._events.policy_changed(agent_id, "deleted")
            raise
        if not deleted:
            raise AgentPolicyNotFound(agent_id)
        self._events.policy_changed(agent_id, "deleted")

    async def assumed(self, agent_id: str) -> AssumedPolicy:
        """Return the policy from the cache, or read it. Raises AgentNotFound if the settings require a policy."""
        cached = self._cache.get(agent_id)
        if cached is not None:
            self._cache.move_to_end(agent_id)
            return cached
        policy = await self._read(agent_id)
        if policy == NO_POLICY and self._requires_known_agent:
            raise AgentNotFound(agent_id)
        return self.cache(agent_id, policy)

    def read_command(self, agent_id: str) -> Command:
        """Build the command that reads a policy, for `policy_from`."""
        return ("HMGET", self._keys.policy(agent_id), *_FIELDS)

    def cache(self, agent_id: str, policy: Policy) -> AssumedPolicy:
        """Cache the current policy. Agents without one are not cached if the settings require a policy."""
        self._cache.pop(agent_id, None)
        assumed = self._assumed_from(policy)
        if assumed is not self._without_policy or not self._requires_known_agent:
            self._cache[agent_id] = assumed
        if len(self._cache) > MAX_CACHED_AGENTS:
            self._cache.popitem(last=False)
        return assumed

    def _assumed_from(self, policy: Policy) -> AssumedPolicy:
        if policy == NO_POLICY:
            return self._without_policy
        return AssumedPolicy(policy, merge_timeouts(self._without_policy.timeout, self._within_bounds(policy)))

    def _within_bounds(self, policy: Policy) -> Timeouts:
        """The members that the policy sets. A replica with wider bounds may have written them."""
        members = policy.timeout
        timeouts: dict[str, float | bool] = {
            name: bounds.clamp(minutes_from(members[name])) for name, bounds in self._bounds.items() if name in members
        }
        if policy.auto_renew is not None:
            timeouts["auto_renew"] = policy.auto_renew == b"true"
        return timeouts

    async def _read(self, agent_id: str) -> Policy:
        values, _ = await self._client.read_hash(self._keys.policy(agent_id), _FIELDS)
        return policy_from(values)


def merge_timeouts(base: Timeouts, changes: Timeouts) -> Timeouts:
    """Apply the changes. A new timeout raises a maximum duration that is shorter, unless the changes set that too."""
    merged = {**base, **changes}
    if "timeout_minutes" in changes and "max_duration_minutes" not in changes:
        merged["max_duration_minutes"] = max(merged["max_duration_minutes"], merged["timeout_minutes"])
    return merged


def policy_from(values: Sequence[bytes | None]) -> Policy:
    """Build a policy from its field values. Without `updatedAt`, or if a value is unreadable, there is no policy."""
    policy = Policy._make(values)
    is_readable = policy.updated_at is not None and policy.updated_at.isdigit() and is_readable_policy(policy.timeout)
    return policy if is_readable else NO_POLICY
