"""Creating a session for an agent that has a policy: what a replica remembers of it decides nothing."""

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
from tests.conftest import AGENT, USER, create_session, policies_on, store_on
from tests.sessions.evidence import KEYS, commands_seen, keys_in

ANOTHER_AGENT = "00000000-0000-4000-8000-000000000001"
DEFAULT = TimeoutConfig(30, True, 720, 5)
POLICY_KEY = KEYS.policy(AGENT)


@pytest.fixture
def policies(redis_client: RedisClient, settings: Settings) -> Policies:
    """Those of another replica: what is put here, the store has not seen."""
    return policies_on(redis_client, settings)


@pytest.fixture
def strict(redis_client: RedisClient) -> SessionStore:
    return store_on(redis_client, Settings(session_require_known_agent=True))


async def timeout_of_a_new_session(store: SessionStore, agent_id: str = AGENT) -> TimeoutConfig:
    return (await create_session(store, agent_id=agent_id)).timeout


async def asked_of_redis(redis: Redis, before: dict[str, int]) -> dict[str, int]:
    """How often a replica has asked for something since then; what scripts call is not counted."""
    after = await commands_seen(redis)
    return {name: after.get(name, 0) - before.get(name, 0) for name in ("evalsha", "hmget", "del", "zrem")}


async def test_without_a_policy_it_takes_three_scripts_and_a_look(store: SessionStore, real_redis: Redis) -> None:
    await timeout_of_a_new_session(store)
    before = await commands_seen(real_redis)

    await timeout_of_a_new_session(store)

    assert await asked_of_redis(real_redis, before) == {"evalsha": 3, "hmget": 1, "del": 0, "zrem": 0}


async def test_under_a_policy_it_knows_it_takes_no_more(
    store: SessionStore, policies: Policies, real_redis: Redis
) -> None:
    await policies.put(AGENT, {"timeout_minutes": 60})
    await timeout_of_a_new_session(store)
    before = await commands_seen(real_redis)

    assert await timeout_of_a_new_session(store) == DEFAULT._replace(timeout_minutes=60)

    assert await asked_of_redis(real_redis, before) == {"evalsha": 3, "hmget": 1, "del": 0, "zrem": 0}


async def test_the_first_for_an_agent_costs_a_look_more_and_nothing_is_taken_back(
    store: SessionStore, policies: Policies, real_redis: Redis
) -> None:
    await timeout_of_a_new_session(store, ANOTHER_AGENT)
    await policies.put(AGENT, {"timeout_minutes": 60})
    before = await commands_seen(real_redis)

    assert await timeout_of_a_new_session(store) == DEFAULT._replace(timeout_minutes=60)

    assert await asked_of_redis(real_redis, before) == {"evalsha": 3, "hmget": 2, "del": 0, "zrem": 0}


@pytest.mark.parametrize("policy", [{}, {"timeout_minutes": 60}])
async def test_it_goes_in_one_round_trip_but_for_the_first_of_an_agent(
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


async def test_that_an_agent_has_no_policy_is_remembered_too(
    store: SessionStore, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await timeout_of_a_new_session(store)
    trips = recorded(redis_client, monkeypatch)

    await timeout_of_a_new_session(store)

    assert len(trips) == 1


async def test_an_id_is_in_its_agents_lookup_before_it_is_in_its_users(
    store: SessionStore, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await timeout_of_a_new_session(store)
    trips = recorded(redis_client, monkeypatch)

    session = await create_session(store)

    ((_, *scripts),) = trips
    assert [command[3] for command in scripts] == [KEYS.agent(AGENT), KEYS.user(USER), KEYS.session(session.id)]


def recorded(redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Command, ...]]:
    """The commands of each trip from now on; what only reads is recorded as one of no command."""
    trips: list[tuple[Command, ...]] = []
    in_order, read = redis_client.execute_ordered, redis_client.read_hash

    async def in_order_on_record(*commands: Command) -> list[Reply]:
        trips.append(commands)
        return await in_order(*commands)

    async def read_on_record(key: str, fields: Fields) -> Read:
        trips.append(())
        return await read(key, fields)

    monkeypatch.setattr(redis_client, "execute_ordered", in_order_on_record)
    monkeypatch.setattr(redis_client, "read_hash", read_on_record)
    return trips


async def test_what_was_created_under_another_policy_is_taken_back(
    store: SessionStore, policies: Policies, real_redis: Redis
) -> None:
    await store.delete((await create_session(store)).id)
    await policies.put(AGENT, {"timeout_minutes": 60})
    before = await commands_seen(real_redis)

    session = await create_session(store)

    assert (await asked_of_redis(real_redis, before))["evalsha"] == 3 + 1 + 3
    assert sorted(await keys_in(real_redis)) == sorted(
        [*KEYS.of(session.id), KEYS.user(USER), KEYS.agent(AGENT), POLICY_KEY]
    )
    assert await real_redis.zrange(KEYS.user(USER), 0, -1) == [session.id.encode()]
    assert await real_redis.zrange(KEYS.agent(AGENT), 0, -1) == [session.id.encode()]


async def test_it_counts_as_one_creation_and_no_end(
    redis_client: RedisClient, policies: Policies, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics()
    store = store_on(redis_client, settings, metrics)
    await store.delete((await create_session(store)).id)
    await policies.put(AGENT, {"timeout_minutes": 60})

    await create_session(store)

    assert metrics.registry.get_sample_value("sessions_created_total") == 2
    assert metrics.registry.get_sample_value("sessions_ended_total", {"reason": "deleted"}) == 1


async def test_a_policy_put_while_sessions_are_created_is_in_force_for_each_or_not_yet(
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


async def test_creations_on_two_replicas_follow_every_change_of_the_policy(
    redis_client: RedisClient, settings: Settings, policies: Policies
) -> None:
    one, other = store_on(redis_client, settings), store_on(redis_client, settings)

    await policies.put(AGENT, {"timeout_minutes": 40})
    first = await asyncio.gather(*(timeout_of_a_new_session(store) for store in [one, other] * 10))
    await policies.put(AGENT, {"auto_renew": False})
    second = await asyncio.gather(*(timeout_of_a_new_session(store) for store in [one, other] * 10))
    await policies.delete(AGENT)
    third = await asyncio.gather(*(timeout_of_a_new_session(store) for store in [one, other] * 10))

    assert Counter(first) == {DEFAULT._replace(timeout_minutes=40): 20}
    assert Counter(second) == {DEFAULT._replace(auto_renew=False): 20}
    assert Counter(third) == {DEFAULT: 20}


async def test_under_a_policy_that_changes_every_time_it_gives_up_and_leaves_nothing(
    store: SessionStore, redis_client: RedisClient, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, in_order = redis_client.execute, redis_client.execute_ordered

    async def change_after_another(*commands: Command) -> list[Reply]:
        await real_redis.hincrby(POLICY_KEY, "updatedAt", 1)
        return await change(*commands)

    async def in_order_after_another(*commands: Command) -> list[Reply]:
        await real_redis.hincrby(POLICY_KEY, "updatedAt", 1)
        return await in_order(*commands)

    monkeypatch.setattr(redis_client, "execute", change_after_another)
    monkeypatch.setattr(redis_client, "execute_ordered", in_order_after_another)

    with pytest.raises(StoreUnavailable):
        await create_session(store)

    assert await keys_in(real_redis) == [POLICY_KEY]
    assert await real_redis.hget(POLICY_KEY, "updatedAt") == str(3 * MAX_ATTEMPTS).encode()


async def test_more_agents_than_are_remembered_have_their_policies_all_the_same(
    store: SessionStore, policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.sessions.policies.MAX_CACHED_AGENTS", 2)
    agents = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(4)]
    await asyncio.gather(*(policies.put(agent, {"timeout_minutes": 60}) for agent in agents))

    timeouts = [await timeout_of_a_new_session(store, agent) for agent in agents * 2]

    assert timeouts == [DEFAULT._replace(timeout_minutes=60)] * 8


async def test_the_agent_that_rested_longest_is_forgotten_first(
    policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.sessions.policies.MAX_CACHED_AGENTS", 2)
    policy = NO_POLICY._replace(updated_at=b"1")
    policies.cache("first", policy)
    policies.cache("second", policy)
    await policies.assumed("first")

    policies.cache("third", policy)

    supposed = {agent: (await policies.assumed(agent)).policy for agent in ("first", "third", "second")}
    assert supposed == {"first": policy, "third": policy, "second": NO_POLICY}


async def test_where_agents_must_be_known_a_stranger_costs_a_read_and_nothing_is_written(
    strict: SessionStore, real_redis: Redis
) -> None:
    before = await commands_seen(real_redis)

    with pytest.raises(AgentNotFound):
        await create_session(strict)

    assert await asked_of_redis(real_redis, before) == {"evalsha": 0, "hmget": 1, "del": 0, "zrem": 0}
    assert await keys_in(real_redis) == []


async def test_where_agents_must_be_known_a_policy_that_is_gone_takes_the_session_with_it(
    strict: SessionStore, policies: Policies, real_redis: Redis
) -> None:
    await policies.put(AGENT, {})
    session = await create_session(strict)
    await strict.delete(session.id)
    await policies.delete(AGENT)

    with pytest.raises(AgentNotFound):
        await create_session(strict)

    assert await keys_in(real_redis) == []


WIDE = Settings(session_min_timeout_minutes=1, session_max_timeout_minutes=14_400)
BEYOND: dict[str, float | bool] = {
    "timeout_minutes": 14_400,
    "auto_renew": False,
    "max_duration_minutes": 28_800,
    "warning_threshold_minutes": 7200,
}


@pytest.mark.parametrize(
    ("policy", "in_force"),
    [
        (BEYOND, TimeoutConfig(1440, False, 2880, 1440)),
        ({"timeout_minutes": 1}, DEFAULT._replace(timeout_minutes=5)),
        ({"max_duration_minutes": 2880}, DEFAULT._replace(max_duration_minutes=2880)),
    ],
)
async def test_a_policy_that_was_put_under_other_bounds_is_brought_within_those_in_force(
    store: SessionStore, redis_client: RedisClient, policy: dict[str, float | bool], in_force: TimeoutConfig
) -> None:
    await policies_on(redis_client, WIDE).put(AGENT, policy)

    assert await timeout_of_a_new_session(store) == in_force
    assert await timeout_of_a_new_session(store_on(redis_client, WIDE)) == DEFAULT._replace(**policy)  # type: ignore[arg-type]


async def test_a_policy_is_shown_as_it_was_put(redis_client: RedisClient, policies: Policies) -> None:
    put = await policies_on(redis_client, WIDE).put(AGENT, BEYOND)

    assert await policies.get(AGENT) == put


async def test_a_policy_can_be_read_by_people(policies: Policies, real_redis: Redis) -> None:
    await policies.put(AGENT, {"timeout_minutes": 7.5, "auto_renew": False, "max_duration_minutes": 240})
    policy = await policies.put(AGENT, {"timeout_minutes": 7.5, "auto_renew": False})

    assert await real_redis.hgetall(POLICY_KEY) == {
        b"timeoutMinutes": b"7.5",
        b"autoRenew": b"false",
        b"updatedAt": policy.updated_at,
    }


async def test_twenty_policies_put_at_once_are_never_mixed(policies: Policies, real_redis: Redis) -> None:
    puts = [policies.put(AGENT, {"timeout_minutes": 60}) for _ in range(10)]
    others = [policies.put(AGENT, {"auto_renew": False}) for _ in range(10)]

    answers = await asyncio.gather(*(put for pair in zip(puts, others, strict=True) for put in pair))

    assert Counter(str(answer.timeout) for answer in answers) == {
        "{'timeout_minutes': b'60'}": 10,
        "{'auto_renew': b'false'}": 10,
    }
    assert await real_redis.hlen(POLICY_KEY) == 2
