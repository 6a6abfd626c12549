"""Creating a session for an agent with a timeout policy, which a replica may have cached."""

import asyncio
from collections import Counter

import pytest
from redis.asyncio import Redis

from service.errors import AgentNotFound, StoreUnavailable
from service.observability.metrics import Metrics
from service.redis_client.client import Fields, Read, RedisClient, Reply
from service.redis_client.scripts import Command
from service.sessions.creation import MAX_ATTEMPTS
from service.sessions.policies import NO_POLICY, Policies
from service.sessions.store import SessionStore
from service.settings import Settings
from service.settings.sessions import TimeoutConfig
from tests.conftest import AGENT, USER, create_session, new_policies, new_session_store
from tests.redis_contents import KEYS, command_counts, keys_in

ANOTHER_AGENT = "00000000-0000-4000-8000-000000000001"
DEFAULT = TimeoutConfig(30, True, 720, 5)
POLICY_KEY = KEYS.policy(AGENT)


@pytest.fixture
def strict(redis_client: RedisClient) -> SessionStore:
    return new_session_store(redis_client, Settings(session_require_known_agent=True))


async def timeout_of_a_new_session(store: SessionStore, agent_id: str = AGENT) -> TimeoutConfig:
    return (await create_session(store, agent_id=agent_id)).timeout


async def commands_sent(redis: Redis, before: dict[str, int]) -> dict[str, int]:
    """How often replicas have sent some commands since then, without calls within scripts."""
    after = await command_counts(redis)
    return {name: after.get(name, 0) - before.get(name, 0) for name in ("evalsha", "hmget", "del", "zrem")}


async def test_a_creation_without_a_policy_takes_three_scripts_and_a_read(
    store: SessionStore, real_redis: Redis
) -> None:
    await timeout_of_a_new_session(store)
    before = await command_counts(real_redis)

    await timeout_of_a_new_session(store)

    assert await commands_sent(real_redis, before) == {"evalsha": 3, "hmget": 1, "del": 0, "zrem": 0}


async def test_a_creation_under_a_cached_policy_takes_no_more_commands(
    store: SessionStore, policies: Policies, real_redis: Redis
) -> None:
    await policies.put(AGENT, {"timeout_minutes": 60})
    await timeout_of_a_new_session(store)
    before = await command_counts(real_redis)

    assert await timeout_of_a_new_session(store) == DEFAULT._replace(timeout_minutes=60)

    assert await commands_sent(real_redis, before) == {"evalsha": 3, "hmget": 1, "del": 0, "zrem": 0}


async def test_the_first_creation_for_an_agent_takes_another_read(
    store: SessionStore, policies: Policies, real_redis: Redis
) -> None:
    await timeout_of_a_new_session(store, ANOTHER_AGENT)
    await policies.put(AGENT, {"timeout_minutes": 60})
    before = await command_counts(real_redis)

    assert await timeout_of_a_new_session(store) == DEFAULT._replace(timeout_minutes=60)

    assert await commands_sent(real_redis, before) == {"evalsha": 3, "hmget": 2, "del": 0, "zrem": 0}


@pytest.mark.parametrize("policy", [{}, {"timeout_minutes": 60}])
async def test_a_creation_takes_one_round_trip_except_for_the_first_of_an_agent(
    store: SessionStore,
    redis_client: RedisClient,
    policies: Policies,
    monkeypatch: pytest.MonkeyPatch,
    policy: dict[str, float | bool],
) -> None:
    await timeout_of_a_new_session(store, ANOTHER_AGENT)
    await policies.put(AGENT, policy)
    trips = recorded(redis_client, monkeypatch)

    await timeout_of_a_new_session(store)
    assert len(trips) == 2

    await timeout_of_a_new_session(store)
    assert len(trips) == 3


async def test_the_absence_of_a_policy_is_cached(
    store: SessionStore, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await timeout_of_a_new_session(store)
    trips = recorded(redis_client, monkeypatch)

    await timeout_of_a_new_session(store)

    assert len(trips) == 1


async def test_an_id_is_added_to_the_index_of_the_agent_before_that_of_the_user(
    store: SessionStore, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await timeout_of_a_new_session(store)
    trips = recorded(redis_client, monkeypatch)

    session = await create_session(store)

    ((_, *scripts),) = trips
    assert [command[3] for command in scripts] == [KEYS.agent(AGENT), KEYS.user(USER), KEYS.session(session.id)]


def recorded(redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Command, ...]]:
    """The commands of each round trip from now on. A read is recorded as an empty one."""
    trips: list[tuple[Command, ...]] = []
    execute_ordered, read_hash = redis_client.execute_ordered, redis_client.read_hash

    async def record_execute_ordered(*commands: Command) -> list[Reply]:
        trips.append(commands)
        return await execute_ordered(*commands)

    async def record_read_hash(key: str, fields: Fields) -> Read:
        trips.append(())
        return await read_hash(key, fields)

    monkeypatch.setattr(redis_client, "execute_ordered", record_execute_ordered)
    monkeypatch.setattr(redis_client, "read_hash", record_read_hash)
    return trips


async def test_a_session_that_was_created_under_an_outdated_policy_is_deleted(
    store: SessionStore, policies: Policies, real_redis: Redis
) -> None:
    await store.delete((await create_session(store)).id)
    await policies.put(AGENT, {"timeout_minutes": 60})
    before = await command_counts(real_redis)

    session = await create_session(store)

    assert (await commands_sent(real_redis, before))["evalsha"] == 3 + 1 + 3
    assert sorted(await keys_in(real_redis)) == sorted(
        [*KEYS.of(session.id)[:5], KEYS.user(USER), KEYS.agent(AGENT), POLICY_KEY]
    )
    assert await real_redis.zrange(KEYS.user(USER), 0, -1) == [session.id.encode()]
    assert await real_redis.zrange(KEYS.agent(AGENT), 0, -1) == [session.id.encode()]


async def test_a_repeated_creation_is_counted_once(
    redis_client: RedisClient, policies: Policies, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics()
    store = new_session_store(redis_client, settings, metrics)
    await store.delete((await create_session(store)).id)
    await policies.put(AGENT, {"timeout_minutes": 60})

    await create_session(store)

    assert metrics.registry.get_sample_value("sessions_created_total") == 2
    assert metrics.registry.get_sample_value("sessions_ended_total", {"reason": "deleted"}) == 1


async def test_a_policy_that_changes_among_creations_applies_entirely_or_not_at_all(
    store: SessionStore, policies: Policies, real_redis: Redis
) -> None:
    creations = [timeout_of_a_new_session(store) for _ in range(40)]
    puts = [policies.put(AGENT, {"timeout_minutes": minutes}) for minutes in (40, 50, 60)]

    timeouts = await asyncio.gather(*creations[:20], *puts, *creations[20:])

    assert {timeout for timeout in timeouts if isinstance(timeout, TimeoutConfig)} <= {
        DEFAULT._replace(timeout_minutes=minutes) for minutes in (30, 40, 50, 60)
    }
    assert await real_redis.zcard(KEYS.agent(AGENT)) == 40
    assert str((await timeout_of_a_new_session(store)).timeout_minutes).encode() == (
        (await policies.get(AGENT)).timeout_minutes
    )


async def test_creations_on_two_replicas_follow_every_policy_change(
    redis_client: RedisClient, settings: Settings, policies: Policies
) -> None:
    one, other = new_session_store(redis_client, settings), new_session_store(redis_client, settings)

    await policies.put(AGENT, {"timeout_minutes": 40})
    first = await asyncio.gather(*(timeout_of_a_new_session(store) for store in [one, other] * 10))
    await policies.put(AGENT, {"auto_renew": False})
    second = await asyncio.gather(*(timeout_of_a_new_session(store) for store in [one, other] * 10))
    await policies.delete(AGENT)
    third = await asyncio.gather(*(timeout_of_a_new_session(store) for store in [one, other] * 10))

    assert Counter(first) == {DEFAULT._replace(timeout_minutes=40): 20}
    assert Counter(second) == {DEFAULT._replace(auto_renew=False): 20}
    assert Counter(third) == {DEFAULT: 20}


async def test_a_creation_gives_up_if_the_policy_changes_every_time(
    store: SessionStore, redis_client: RedisClient, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute, execute_ordered = redis_client.execute, redis_client.execute_ordered

    async def execute_after_a_change(*commands: Command) -> list[Reply]:
        await real_redis.hincrby(POLICY_KEY, "updatedAt", 1)
        return await execute(*commands)

    async def execute_ordered_after_a_change(*commands: Command) -> list[Reply]:
        await real_redis.hincrby(POLICY_KEY, "updatedAt", 1)
        return await execute_ordered(*commands)

    monkeypatch.setattr(redis_client, "execute", execute_after_a_change)
    monkeypatch.setattr(redis_client, "execute_ordered", execute_ordered_after_a_change)

    with pytest.raises(StoreUnavailable):
        await create_session(store)

    assert await keys_in(real_redis) == [POLICY_KEY]
    assert await real_redis.hget(POLICY_KEY, "updatedAt") == str(3 * MAX_ATTEMPTS).encode()


async def test_policies_apply_to_more_agents_than_are_cached(
    store: SessionStore, policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.sessions.policies.MAX_CACHED_AGENTS", 2)
    agents = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(4)]
    await asyncio.gather(*(policies.put(agent, {"timeout_minutes": 60}) for agent in agents))

    timeouts = [await timeout_of_a_new_session(store, agent) for agent in agents * 2]

    assert timeouts == [DEFAULT._replace(timeout_minutes=60)] * 8


async def test_the_least_recently_used_agent_is_dropped_from_the_cache_first(
    policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.sessions.policies.MAX_CACHED_AGENTS", 2)
    policy = NO_POLICY._replace(updated_at=b"1")
    policies.cache("first", policy)
    policies.cache("second", policy)
    await policies.assumed("first")

    policies.cache("third", policy)

    assumed = {agent: (await policies.assumed(agent)).policy for agent in ("first", "third", "second")}
    assert assumed == {"first": policy, "third": policy, "second": NO_POLICY}


async def test_an_unknown_agent_costs_a_read_and_writes_nothing(strict: SessionStore, real_redis: Redis) -> None:
    before = await command_counts(real_redis)

    with pytest.raises(AgentNotFound):
        await create_session(strict)

    assert await commands_sent(real_redis, before) == {"evalsha": 0, "hmget": 1, "del": 0, "zrem": 0}
    assert await keys_in(real_redis) == []


async def test_no_session_stays_if_the_required_policy_was_deleted(
    strict: SessionStore, policies: Policies, real_redis: Redis
) -> None:
    await policies.put(AGENT, {})
    session = await create_session(strict)
    await strict.delete(session.id)
    await policies.delete(AGENT)

    with pytest.raises(AgentNotFound):
        await create_session(strict)

    assert await keys_in(real_redis) == []


@pytest.mark.parametrize(
    ("policy", "request_timeout", "expected"),
    [
        ({}, {"timeout_minutes": 1440}, DEFAULT._replace(timeout_minutes=1440, max_duration_minutes=1440)),
        ({"timeout_minutes": 1440}, {}, DEFAULT._replace(timeout_minutes=1440, max_duration_minutes=1440)),
        (
            {"max_duration_minutes": 60},
            {"timeout_minutes": 90},
            DEFAULT._replace(timeout_minutes=90, max_duration_minutes=90),
        ),
        (
            {"timeout_minutes": 1440},
            {"max_duration_minutes": 60},
            DEFAULT._replace(timeout_minutes=1440, max_duration_minutes=60),
        ),
        ({"max_duration_minutes": 10}, {}, DEFAULT._replace(max_duration_minutes=10)),
    ],
)
async def test_a_timeout_raises_a_shorter_maximum_duration_of_a_less_specific_source(
    store: SessionStore,
    policies: Policies,
    policy: dict[str, float | bool],
    request_timeout: dict[str, float | bool],
    expected: TimeoutConfig,
) -> None:
    await policies.put(AGENT, policy)

    session = await create_session(store, config=request_timeout)

    assert session.timeout == expected


WIDE_BOUNDS = Settings(session_min_timeout_minutes=1, session_max_timeout_minutes=14_400)
BEYOND_DEFAULT_BOUNDS: dict[str, float | bool] = {
    "timeout_minutes": 14_400,
    "auto_renew": False,
    "max_duration_minutes": 28_800,
    "warning_threshold_minutes": 7200,
}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (BEYOND_DEFAULT_BOUNDS, TimeoutConfig(1440, False, 2880, 1440)),
        ({"timeout_minutes": 1}, DEFAULT._replace(timeout_minutes=5)),
        ({"max_duration_minutes": 2880}, DEFAULT._replace(max_duration_minutes=2880)),
    ],
)
async def test_a_policy_beyond_the_bounds_of_a_replica_is_clamped(
    store: SessionStore, redis_client: RedisClient, policy: dict[str, float | bool], expected: TimeoutConfig
) -> None:
    await new_policies(redis_client, WIDE_BOUNDS).put(AGENT, policy)

    assert await timeout_of_a_new_session(store) == expected
    assert await timeout_of_a_new_session(new_session_store(redis_client, WIDE_BOUNDS)) == DEFAULT._replace(**policy)  # type: ignore[arg-type]


async def test_a_policy_is_returned_as_it_was_put(redis_client: RedisClient, policies: Policies) -> None:
    put = await new_policies(redis_client, WIDE_BOUNDS).put(AGENT, BEYOND_DEFAULT_BOUNDS)

    assert await policies.get(AGENT) == put


async def test_the_hash_of_a_policy_has_readable_fields(policies: Policies, real_redis: Redis) -> None:
    await policies.put(AGENT, {"timeout_minutes": 7.5, "auto_renew": False, "max_duration_minutes": 240})
    policy = await policies.put(AGENT, {"timeout_minutes": 7.5, "auto_renew": False})

    assert await real_redis.hgetall(POLICY_KEY) == {
        b"timeoutMinutes": b"7.5",
        b"autoRenew": b"false",
        b"updatedAt": policy.updated_at,
    }


async def test_twenty_concurrent_policies_are_never_mixed(policies: Policies, real_redis: Redis) -> None:
    puts = [policies.put(AGENT, {"timeout_minutes": 60}) for _ in range(10)]
    others = [policies.put(AGENT, {"auto_renew": False}) for _ in range(10)]

    results = await asyncio.gather(*(put for pair in zip(puts, others, strict=True) for put in pair))

    assert Counter(str(policy.timeout) for policy in results) == {
        "{'timeout_minutes': b'60'}": 10,
        "{'auto_renew': b'false'}": 10,
    }
    assert await real_redis.hlen(POLICY_KEY) == 2
