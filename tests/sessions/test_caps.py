"""Caps on live sessions: exact over replicas, on those that live and no others, and what becomes of one too many."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import cycle

import pytest
from redis.asyncio import Redis

from service.errors import CreationContention, SessionLimitReached, StoreUnavailable
from service.maintenance.index_repair import IndexRemoval, IndexRepair
from service.maintenance.lost_sessions import LostSessions
from service.maintenance.reconciler import Reconciler
from service.maintenance.sweeper import Sweeper
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient, Reply
from service.redis_client.errors import CommandRejected, ScriptError
from service.redis_client.factory import ClientFactory
from service.redis_client.scripts import Command
from service.sessions.events import SessionEvents
from service.sessions.keys import REVOCATION_MARKER_MS, SHARDS, Keys
from service.sessions.occupancy import ABANDONED_MS
from service.sessions.revocation import BulkRevocation, OwnerFilter, Revoked
from service.sessions.scripts import CREATE
from service.sessions.session import Session, new_session_id
from service.sessions.store import SessionStore
from service.settings import Settings
from service.timestamps import ms_from_time_reply
from tests.aging import age_counted
from tests.attempt import attempt
from tests.conftest import AGENT, USER, create_session, events_into, policies_on, store_on
from tests.counted import counted
from tests.interruption import Interrupted
from tests.sessions.evidence import KEYS, commands_seen, forget_commands, keys_in
from tests.sessions.test_revocation import out_of_memory

MINUTE_MS = 60_000
OTHER_AGENT = "00000000-0000-4000-8000-00000000000a"
OTHER_USER = "00000000-0000-4000-8000-00000000000b"
LOOKUPS = [KEYS.agent(AGENT), KEYS.user(USER)]

OF_A_USER = Settings(session_max_per_user=3, session_store_timeout_seconds=10)
OF_AN_AGENT = Settings(session_max_per_agent=3, session_store_timeout_seconds=10)
OF_BOTH = Settings(session_max_per_user=3, session_max_per_agent=5, session_store_timeout_seconds=10)

each_cap = pytest.mark.parametrize("settings", [OF_A_USER, OF_AN_AGENT], ids=["user", "agent"])


def evicting(settings: Settings) -> Settings:
    return settings.model_copy(update={"session_cap_policy": "evict"})


@pytest.fixture
def settings() -> Settings:
    return OF_A_USER


@pytest.fixture
def uncapped(redis_client: RedisClient) -> SessionStore:
    """A replica without caps, beside one that has them."""
    return store_on(redis_client, Settings())


async def create(store: SessionStore, number: int, agent_id: str = AGENT, user_id: str = USER) -> list[Session]:
    """One after the other."""
    return [await create_session(store, agent_id=agent_id, user_id=user_id) for _ in range(number)]


async def create_over_time(redis: Redis, store: SessionStore, number: int, user_id: str = USER) -> list[Session]:
    """A second after one another; the last one a second ago."""
    sessions = await create(store, number, user_id=user_id)
    for place, session in enumerate(sessions):
        await age_counted(redis, session.id, (number - place) * 1000, KEYS.agent(AGENT), KEYS.user(user_id))
    return sessions


async def expire(redis: Redis, sessions: Iterable[Session]) -> None:
    """Let the timeouts of these pass."""
    await asyncio.gather(*(age_counted(redis, session.id, 31 * MINUTE_MS, *LOOKUPS) for session in sessions))


async def make_active(redis: Redis, sessions: Iterable[Session], from_ms: int) -> None:
    """As if each had been active a millisecond after the one before, and nobody had looked since."""
    for place, session in enumerate(sessions):
        await redis.hset(KEYS.session(session.id), "lastActivity", str(from_ms + place))


async def attempts(store: SessionStore, number: int = 1, agent_id: str = AGENT, user_id: str = USER) -> Counter[str]:
    """What so many at once are answered."""
    creating = (attempt(create_session, store, agent_id=agent_id, user_id=user_id) for _ in range(number))
    return Counter(await asyncio.gather(*creating))


async def states(store: SessionStore, sessions: Iterable[Session]) -> list[str]:
    return [await attempt(store.get, session.id) for session in sessions]


async def living_in(redis: Redis) -> int:
    """How many sessions live, by their own hashes."""
    keys = await keys_in(redis)
    return len([key for key in keys if key.startswith("session:") and not key.endswith(":tombstone")])


async def list_by_hand(redis: Redis, ms_ago: int, *owner_indexes: str) -> str:
    """An id that was listed so long ago, and has no session."""
    session_id = new_session_id()
    now_ms = ms_from_time_reply(await redis.time())
    for owner_index in owner_indexes:
        await redis.zadd(owner_index, {session_id: now_ms - ms_ago})
        await redis.pexpire(owner_index, 10 * MINUTE_MS)
    return session_id


# Denied


@each_cap
async def test_as_many_as_the_cap_may_live(store: SessionStore) -> None:
    assert await states(store, await create(store, 3)) == ["live"] * 3


@each_cap
async def test_one_more_is_refused(store: SessionStore, real_redis: Redis) -> None:
    await create(store, 3)

    assert await attempts(store) == {"full": 1}
    assert await living_in(real_redis) == 3


async def test_a_refusal_says_whose_places_are_taken_and_how_many_there_are(redis_client: RedisClient) -> None:
    both = store_on(redis_client, OF_BOTH)
    await create(both, 3)
    await create(both, 2, user_id=OTHER_USER)

    with pytest.raises(SessionLimitReached) as of_the_user:
        await create(both, 1, agent_id=OTHER_AGENT)
    with pytest.raises(SessionLimitReached) as of_the_agent:
        await create(both, 1, user_id=OTHER_USER)

    assert of_the_user.value.facts == {"limit": "user", "max": 3, "userId": USER}
    assert of_the_agent.value.facts == {"limit": "agent", "max": 5, "agentId": AGENT}


@pytest.mark.parametrize("settings", [OF_BOTH])
async def test_one_that_is_refused_leaves_nothing(store: SessionStore, real_redis: Redis) -> None:
    await create(store, 3)
    await create(store, 2, user_id=OTHER_USER)
    before = await keys_in(real_redis)

    assert await attempts(store, user_id=OTHER_USER) == {"full": 1}

    assert sorted(await keys_in(real_redis)) == sorted(before)
    assert (
        await real_redis.zcard(KEYS.user(OTHER_USER))
        == await real_redis.zcard(KEYS.capped_index(KEYS.user(OTHER_USER)).ends)
        == 2
    )


async def test_those_of_others_do_not_count(store: SessionStore) -> None:
    await create(store, 3)

    assert await attempts(store, user_id=OTHER_USER) == {"live": 1}


async def test_an_agent_without_a_cap_has_any_number(store: SessionStore) -> None:
    await create(store, 3)
    await create(store, 3, user_id=OTHER_USER)

    assert await attempts(store, user_id=OTHER_USER) == {"full": 1}
    assert await attempts(store, user_id="00000000-0000-4000-8000-00000000000c") == {"live": 1}


# Only those that live count


@each_cap
async def test_one_that_was_deleted_makes_room(store: SessionStore) -> None:
    session, *_ = await create(store, 3)
    await store.delete(session.id)

    assert await attempts(store, 2) == {"live": 1, "full": 1}


@each_cap
async def test_one_that_ended_a_moment_ago_makes_room_before_it_is_swept(
    store: SessionStore, real_redis: Redis
) -> None:
    session, *_ = await create(store, 3)
    assert await attempts(store) == {"full": 1}
    await age_counted(real_redis, session.id, session.time_remaining_ms, *LOOKUPS)

    assert await attempts(store, 2) == {"live": 1, "full": 1}
    assert await attempt(store.get, session.id) == "expired"


@pytest.mark.parametrize("settings", [Settings(session_max_per_user=100)])
async def test_of_many_those_that_have_ended_make_room(store: SessionStore, real_redis: Redis) -> None:
    sessions = await asyncio.gather(*(create_session(store) for _ in range(100)))
    assert await attempts(store) == {"full": 1}
    await expire(real_redis, sessions[40:60])

    assert await attempts(store, 30) == {"live": 20, "full": 10}


@each_cap
async def test_one_that_was_lost_makes_room(store: SessionStore, real_redis: Redis) -> None:
    session, *_ = await create(store, 3)
    assert await attempts(store) == {"full": 1}
    await real_redis.delete(KEYS.session(session.id))

    assert await attempts(store, 2) == {"live": 1, "full": 1}


@pytest.mark.parametrize("settings", [Settings(session_max_per_user=100)])
async def test_one_whose_end_came_nearer_makes_room_then(store: SessionStore, real_redis: Redis) -> None:
    session, *_ = await asyncio.gather(*(create_session(store) for _ in range(100)))
    assert await attempts(store) == {"full": 1}
    await store.update_timeout(session.id, {"timeout_minutes": 5})
    await age_counted(real_redis, session.id, 5 * MINUTE_MS, *LOOKUPS)

    assert await attempts(store, 2) == {"live": 1, "full": 1}


async def test_one_that_was_renewed_takes_its_place_on(store: SessionStore, real_redis: Redis) -> None:
    session, *_ = await create(store, 3)
    assert await attempts(store) == {"full": 1}
    await age_counted(real_redis, session.id, 29 * MINUTE_MS, *LOOKUPS)
    await store.heartbeat(session.id)
    await real_redis.zincrby(KEYS.capped_index(KEYS.user(USER)).ends, -2 * MINUTE_MS, session.id)

    assert await attempts(store) == {"full": 1}


@each_cap
async def test_those_that_were_revoked_make_room(store: SessionStore, redis_client: RedisClient) -> None:
    await create(store, 3)
    revocation = BulkRevocation(redis_client, Keys("", capped=True), events_into(Metrics()))

    assert await revocation.revoke(OwnerFilter(None, USER)) == Revoked(3, None)

    assert await attempts(store, 4) == {"live": 3, "full": 1}


async def test_one_of_others_that_is_listed_by_hand_takes_no_place(store: SessionStore, real_redis: Redis) -> None:
    (other,) = await create(store, 1, OTHER_AGENT, OTHER_USER)
    await create(store, 2)
    await real_redis.zadd(KEYS.user(USER), {other.id: other.created_at_ms})

    assert await attempts(store, 2) == {"live": 1, "full": 1}
    assert await attempt(store.get, other.id) == "live"


# Creations that are on their way, and those that came to nothing


async def test_one_that_is_on_its_way_is_waited_for_and_counts(redis_client: RedisClient, real_redis: Redis) -> None:
    impatient = Settings(session_max_per_user=1, session_store_timeout_seconds=1)
    await list_by_hand(real_redis, 800, KEYS.user(USER))

    assert await attempts(store_on(redis_client, impatient)) == {"full": 1}


async def test_where_only_those_on_their_way_could_be_evicted_there_is_no_turn(
    redis_client: RedisClient, real_redis: Redis
) -> None:
    impatient = Settings(session_max_per_user=1, session_store_timeout_seconds=0.2)
    await list_by_hand(real_redis, 0, KEYS.user(USER))

    with pytest.raises(CreationContention) as refusal:
        await create(store_on(redis_client, evicting(impatient)), 1)

    assert refusal.value.facts == {"limit": "user", "userId": USER}
    assert await real_redis.zcard(KEYS.user(USER)) == 1


@pytest.mark.parametrize("policy", ["deny", "evict"])
async def test_whoever_waits_has_the_place_of_one_that_gave_it_back(
    redis_client: RedisClient, real_redis: Redis, policy: str
) -> None:
    coming = await list_by_hand(real_redis, 0, KEYS.user(USER))
    settings = Settings(session_max_per_user=1, session_cap_policy=policy)
    interrupted = Interrupted(redis_client, "ZADD", after=lambda: real_redis.zrem(KEYS.user(USER), coming))

    assert await attempts(store_on(interrupted, settings)) == {"live": 1}


async def test_one_that_is_long_on_its_way_counts(store: SessionStore, real_redis: Redis) -> None:
    await list_by_hand(real_redis, ABANDONED_MS - 10_000, KEYS.user(USER))
    await create(store, 2)

    assert await attempts(store) == {"full": 1}


@each_cap
async def test_one_that_came_to_nothing_makes_room(store: SessionStore, real_redis: Redis) -> None:
    await list_by_hand(real_redis, ABANDONED_MS + 1000, *LOOKUPS)
    await create(store, 2)

    assert await attempts(store, 2) == {"live": 1, "full": 1}


async def test_should_it_come_after_all_it_is_refused(store: SessionStore, real_redis: Redis) -> None:
    session_id = await list_by_hand(real_redis, ABANDONED_MS + 1000, KEYS.user(USER))
    await create(store, 3)

    keys = KEYS.of(session_id)
    arguments = dict.fromkeys(CREATE.arguments, "1")
    command = CREATE.command(keys, **arguments)
    answer = await real_redis.eval(CREATE.text, len(CREATE.keys), *map(str, command[3:]))

    assert answer == [b"revoked"]
    assert await real_redis.pttl(keys.tombstone) <= REVOCATION_MARKER_MS


@pytest.mark.parametrize("settings", [OF_BOTH])
async def test_one_whose_policy_was_another_keeps_one_place(
    store: SessionStore, redis_client: RedisClient, real_redis: Redis
) -> None:
    await create(store, 1)
    await policies_on(redis_client, OF_BOTH).put(AGENT, {"timeout_minutes": 60})

    await create(store, 1)

    assert [await real_redis.zcard(key) for owner_index in LOOKUPS for key in KEYS.capped_index(owner_index)] == [
        2,
        0,
        2,
    ] * 2
    assert await attempts(store, 2) == {"live": 1, "full": 1}


async def test_where_redis_forgot_the_scripts_places_are_as_many(store: SessionStore, real_redis: Redis) -> None:
    await create(store, 2)
    await real_redis.script_flush()

    assert await attempts(store, 4) == {"live": 1, "full": 3}


async def test_one_that_a_lookup_cannot_know_gives_its_other_place_back(store: SessionStore, real_redis: Redis) -> None:
    await real_redis.set(KEYS.agent(AGENT), "no lookup", px=MINUTE_MS)

    with pytest.raises(ScriptError):
        await create(store, 1)

    assert await keys_in(real_redis) == [KEYS.agent(AGENT)]


async def test_one_that_redis_did_not_answer_is_taken_out_of_its_lookups_later(
    store: SessionStore, redis_client: RedisClient, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = type(redis_client).execute

    async def unanswered(redis_client: RedisClient, *commands: Command) -> list[Reply]:
        await change(redis_client, *commands)
        raise StoreUnavailable("no answer")

    delisting = IndexRemoval(redis_client, Keys("", capped=True))
    left_behind = list[str]()
    monkeypatch.setattr(SessionEvents, "index_entry_left", lambda _, *ids: left_behind.extend(ids[:3]))
    with monkeypatch.context() as patch:
        patch.setattr(type(redis_client), "execute", unanswered)
        with pytest.raises(StoreUnavailable):
            await create(store, 1)

    delisting.queue_ended(*left_behind)
    await delisting.process_queue()

    assert await keys_in(real_redis) == []


@pytest.mark.parametrize("policy", ["deny", "evict"])
async def test_one_that_redis_has_no_memory_for_takes_no_place(
    redis_client: RedisClient, real_redis: Redis, policy: str
) -> None:
    store = store_on(redis_client, Settings(session_max_per_user=3, session_cap_policy=policy))
    sessions = await create(store, 2)

    async with out_of_memory(real_redis):
        with pytest.raises(CommandRejected):
            await create(store, 1)

    assert [await real_redis.zcard(owner_index) for owner_index in LOOKUPS] == [2, 2]
    assert await states(store, sessions) == ["live", "live"]


# Evicted


@pytest.fixture
def evictor(redis_client: RedisClient, settings: Settings) -> SessionStore:
    return store_on(redis_client, evicting(settings))


@each_cap
async def test_the_least_recently_active_ends_for_one_more(evictor: SessionStore, real_redis: Redis) -> None:
    first, second, third = await create_over_time(real_redis, evictor, 3)
    await evictor.heartbeat(first.id)
    await evictor.get(second.id)

    (fourth,) = await create(evictor, 1)

    assert await states(evictor, [first, second, third, fourth]) == ["live", "missing", "live", "live"]


@each_cap
async def test_nothing_of_it_stays(evictor: SessionStore, real_redis: Redis) -> None:
    first, *_ = await create_over_time(real_redis, evictor, 3)

    await create(evictor, 1)

    lists = [await real_redis.zrange(key, 0, -1) for owner_index in LOOKUPS for key in KEYS.capped_index(owner_index)]
    assert not [key for key in await keys_in(real_redis) if first.id in key]
    assert first.id.encode() not in {session_id for ids in lists for session_id in ids}


async def test_it_is_counted_as_evicted(redis_client: RedisClient) -> None:
    metrics = Metrics()

    await create(store_on(redis_client, evicting(OF_A_USER), metrics), 5)

    assert counted(metrics.ended) == {"evicted": 2}
    assert counted(metrics.denied) == {}


@pytest.mark.parametrize(("settings", "limit"), [(OF_A_USER, "user"), (OF_AN_AGENT, "agent")])
async def test_one_that_is_refused_is_counted_by_whose_cap_it_is(
    redis_client: RedisClient, settings: Settings, limit: str
) -> None:
    metrics = Metrics()

    await attempts(store_on(redis_client, settings, metrics), 5)

    assert counted(metrics.denied) == {limit: 2}


async def test_one_that_has_ended_makes_room_before_any_is_evicted(evictor: SessionStore, real_redis: Redis) -> None:
    first, second, third = await create(evictor, 3)
    await expire(real_redis, [second])

    await create(evictor, 1)

    assert await states(evictor, [first, second, third]) == ["live", "expired", "live"]


async def test_one_of_another_user_ends_where_the_agent_has_too_many(
    redis_client: RedisClient, real_redis: Redis
) -> None:
    both = store_on(redis_client, evicting(OF_BOTH))
    others = await create_over_time(real_redis, both, 2, OTHER_USER)
    sessions = await create_over_time(real_redis, both, 3)

    await create(both, 1)
    await create(both, 1, user_id=OTHER_USER)

    assert await states(both, others) == ["missing", "live"]
    assert await states(both, sessions) == ["missing", "live", "live"]


async def test_whoever_was_active_last_survives_among_many(redis_client: RedisClient, real_redis: Redis) -> None:
    many_and_no_more = Settings(session_max_per_user=60, session_store_timeout_seconds=10)
    many = store_on(redis_client, evicting(many_and_no_more))
    sessions = await create_over_time(real_redis, many, 60)
    assert await attempts(store_on(redis_client, many_and_no_more)) == {"full": 1}
    in_order_of_activity = random.Random(7).sample(sessions, 60)
    await make_active(real_redis, in_order_of_activity, sessions[-1].created_at_ms - 100)  # later than is known of any

    await create(many, 3)

    assert await states(many, in_order_of_activity) == ["missing"] * 3 + ["live"] * 57


async def test_one_that_is_active_while_it_is_looked_at_stays(redis_client: RedisClient, real_redis: Redis) -> None:
    first, second, third = await create_over_time(real_redis, store_on(redis_client, OF_A_USER), 3)
    store = store_on(redis_client, evicting(OF_A_USER))
    interrupted = store_on(
        Interrupted(redis_client, "evict", before=lambda: store.heartbeat(first.id)), evicting(OF_A_USER)
    )

    await create(interrupted, 1)

    assert await states(store, [first, second, third]) == ["live", "missing", "live"]


async def test_one_that_is_deleted_while_it_is_looked_at_is_not_followed_by_another(
    redis_client: RedisClient, real_redis: Redis
) -> None:
    store = store_on(redis_client, evicting(OF_A_USER))
    first, second, third = await create_over_time(real_redis, store, 3)
    interrupted = store_on(
        Interrupted(redis_client, "evict", before=lambda: store.delete(first.id)), evicting(OF_A_USER)
    )

    await create(interrupted, 1)

    assert await states(store, [first, second, third]) == ["missing", "live", "live"]


async def test_one_that_is_on_its_way_is_not_evicted(evictor: SessionStore, real_redis: Redis) -> None:
    coming = await list_by_hand(real_redis, ABANDONED_MS - 15_000, KEYS.user(USER))
    first, second = await create_over_time(real_redis, evictor, 2)

    await create(evictor, 1)

    assert await states(evictor, [first, second]) == ["missing", "live"]
    assert await real_redis.zscore(KEYS.user(USER), coming) is not None


# Owners who have more already, and replicas that differ


@each_cap
async def test_where_more_live_than_may_one_is_refused_until_they_are_fewer(
    store: SessionStore, uncapped: SessionStore
) -> None:
    sessions = await create(uncapped, 5)

    before = await attempts(store)
    await asyncio.gather(*(uncapped.delete(session.id) for session in sessions[:3]))

    assert (before, await attempts(store, 2)) == ({"full": 1}, {"live": 1, "full": 1})


@each_cap
async def test_where_more_live_than_may_they_end_until_the_cap_holds(
    evictor: SessionStore, uncapped: SessionStore, real_redis: Redis
) -> None:
    sessions = await create_over_time(real_redis, uncapped, 40)

    newest = await create(evictor, 1)

    assert await states(evictor, [*sessions, *newest]) == ["missing"] * 38 + ["live"] * 3


async def test_what_replicas_without_caps_create_and_end_is_counted(
    store: SessionStore, uncapped: SessionStore
) -> None:
    first, second, third = await create(store, 3)
    assert await attempts(store) == {"full": 1}
    await uncapped.delete(first.id)
    await create(uncapped, 1)
    assert await attempts(store) == {"full": 1}
    await uncapped.delete(second.id)
    await uncapped.delete(third.id)

    assert await attempts(store, 4) == {"live": 2, "full": 2}


async def test_replicas_may_differ_in_what_they_do(
    store: SessionStore, evictor: SessionStore, real_redis: Redis
) -> None:
    first, *others = await create_over_time(real_redis, store, 3)
    assert await attempts(store) == {"full": 1}

    await create(evictor, 1)

    assert await attempts(store) == {"full": 1}
    assert await states(store, [first, *others]) == ["missing", "live", "live"]


@pytest.mark.parametrize("policy", ["deny", "evict"])
async def test_what_lies_beside_a_lookup_may_be_deleted(
    redis_client: RedisClient, real_redis: Redis, policy: str
) -> None:
    store = store_on(redis_client, Settings(session_max_per_user=20, session_cap_policy=policy))
    sessions = await create(store, 20)
    await attempts(store)
    await real_redis.delete(*KEYS.capped_index(KEYS.user(USER))[:2])
    await expire(real_redis, sessions[-1:])

    await attempts(store, 3)

    assert await living_in(real_redis) == 20


@each_cap
async def test_a_lookup_that_was_deleted_counts_again_once_it_is_reconciled(
    store: SessionStore, redis_client: RedisClient, real_redis: Redis, settings: Settings
) -> None:
    await create(store, 3)
    await real_redis.delete(*[key for owner_index in LOOKUPS for key in KEYS.capped_index(owner_index)])

    await reconciled(redis_client, settings)

    assert await attempts(store) == {"full": 1}


async def reconciled(redis_client: RedisClient, settings: Settings) -> None:
    """Every shard once."""
    keys, metrics = Keys("", capped=True), Metrics()
    relisting = IndexRepair(
        redis_client, keys, IndexRemoval(redis_client, keys), owner_index_lifetime_ms=settings.owner_index_lifetime_ms
    )
    reconciler = Reconciler(
        redis_client, keys, relisting, LostSessions(redis_client, keys, events_into(metrics)), metrics
    )
    for _ in SHARDS:
        await reconciler.reconcile_next_shard()


@each_cap
async def test_what_is_swept_leaves_nothing_beside_its_lookups(
    evictor: SessionStore, redis_client: RedisClient, real_redis: Redis, settings: Settings
) -> None:
    sessions = await create(evictor, 3)
    await expire(real_redis, sessions)
    metrics = Metrics()

    await Sweeper(redis_client, Keys("", capped=True), events_into(metrics), metrics, retention_ms=MINUTE_MS).sweep()

    assert {key.partition(":{")[0] for key in await keys_in(real_redis)} == {"session"}


# Exactly, whatever happens at once


@pytest.fixture
async def replicas(source: ClientFactory, settings: Settings) -> AsyncIterator[list[SessionStore]]:
    """Three of them, each with a way to Redis of its own."""
    redis_clients = [source.new_client() for _ in range(3)]
    yield [store_on(redis_client, settings) for redis_client in redis_clients]
    for redis_client in redis_clients:
        await redis_client.aclose()


async def of_all(replicas: Sequence[SessionStore], number: int, user_ids: Sequence[str] = (USER,)) -> Counter[str]:
    """What so many creations at once are answered, by turns of each replica and for each of these users."""
    turns = zip(cycle(replicas), cycle(user_ids), range(number), strict=False)
    answers = [attempt(create_session, store, user_id=user_id) for store, user_id, _ in turns]
    return Counter(await asyncio.gather(*answers))


@pytest.mark.parametrize("settings", [Settings(session_max_per_user=10), Settings(session_max_per_agent=10)])
async def test_of_two_hundred_at_once_the_cap_lives(replicas: list[SessionStore], real_redis: Redis) -> None:
    assert await of_all(replicas, 200) == {"live": 10, "full": 190}
    assert await living_in(real_redis) == 10


@pytest.mark.parametrize("settings", [Settings(session_max_per_user=4, session_max_per_agent=10)])
async def test_of_two_hundred_of_four_users_at_once_both_caps_live(
    replicas: list[SessionStore], real_redis: Redis
) -> None:
    users = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(4)]

    assert await of_all(replicas, 200, users) == {"live": 10, "full": 190}
    assert await living_in(real_redis) == 10
    assert max([await real_redis.zcard(KEYS.user(user_id)) for user_id in users]) <= 4


@pytest.mark.parametrize(
    "settings",
    [
        evicting(Settings(session_max_per_user=10, session_store_timeout_seconds=30)),
        evicting(Settings(session_max_per_user=1, session_store_timeout_seconds=30)),
        evicting(Settings(session_max_per_user=7, session_max_per_agent=5, session_store_timeout_seconds=30)),
    ],
    ids=["10", "1", "5 of 7"],
)
async def test_of_sixty_at_once_each_lives_and_the_cap_is_left(
    replicas: list[SessionStore], real_redis: Redis, settings: Settings
) -> None:
    caps = [settings.session_max_per_agent, settings.session_max_per_user]

    assert await of_all(replicas, 60) == {"live": 60}
    assert await living_in(real_redis) == min(cap for cap in caps if cap is not None)


@pytest.mark.parametrize("kind", ["server", "sentinel"])
@pytest.mark.parametrize("settings", [Settings(session_max_per_user=10)])
async def test_while_sessions_are_ended_there_are_never_more_than_the_cap(
    replicas: list[SessionStore], real_redis: Redis
) -> None:
    seen = list[int]()

    async def come_and_go(store: SessionStore) -> None:
        session = await create_session(store)
        seen.append(
            len(await real_redis.keys("session:*:tombstone"))
        )  # a scan would see one that ends and one after it
        await store.delete(session.id)

    await asyncio.gather(*(attempt(come_and_go, store) for store in replicas * 20))

    assert max(seen) <= 10
    assert await of_all(replicas, 30) == {"live": 10, "full": 20}


# What it costs


@pytest.mark.parametrize("kind", ["server"])
@pytest.mark.parametrize("settings", [OF_BOTH])
async def test_where_there_is_room_it_takes_two_scripts_and_a_look(store: SessionStore, real_redis: Redis) -> None:
    await create(store, 1)
    await forget_commands(real_redis)

    await create(store, 1)

    asked = await commands_seen(real_redis)
    assert (asked["evalsha"], asked["hmget"]) == (2, 1)


@pytest.mark.parametrize("kind", ["server"])
@pytest.mark.parametrize("settings", [Settings(session_max_per_agent=10_000, session_store_timeout_seconds=30)])
async def test_ten_thousand_are_not_read_again_for_the_next_that_is_refused(
    store: SessionStore, real_redis: Redis
) -> None:
    await live_by_hand(real_redis, 10_000)
    await forget_commands(real_redis)
    assert await attempts(store) == {"full": 1}
    at_first = await commands_seen(real_redis)
    await forget_commands(real_redis)

    assert await attempts(store) == {"full": 1}

    assert at_first["hmget"] >= 10_000
    assert (await commands_seen(real_redis))["hmget"] <= 20
    assert (await commands_seen(real_redis)).keys() & {"zadd", "hset"} == set()


@pytest.mark.parametrize("kind", ["server"])
@pytest.mark.parametrize("settings", [Settings(session_max_per_agent=2000, session_store_timeout_seconds=30)])
async def test_where_none_was_evicted_before_the_queue_is_made_in_few_rounds(
    store: SessionStore, evictor: SessionStore, real_redis: Redis
) -> None:
    await live_by_hand(real_redis, 2000)
    assert await attempts(store) == {"full": 1}
    await forget_commands(real_redis)

    await create(evictor, 1)

    assert (await commands_seen(real_redis))["evalsha"] <= 20
    assert await real_redis.zcard(KEYS.agent(AGENT)) == 2000


@pytest.mark.parametrize("kind", ["server"])
@pytest.mark.parametrize(
    "settings", [evicting(Settings(session_max_per_agent=10_000, session_store_timeout_seconds=30))]
)
async def test_ten_thousand_are_not_read_again_for_the_next_that_is_evicted(
    store: SessionStore, real_redis: Redis
) -> None:
    await live_by_hand(real_redis, 10_000)
    await create(store, 1)
    await forget_commands(real_redis)

    await create(store, 10)

    assert (await commands_seen(real_redis))["hmget"] <= 300
    assert await real_redis.zcard(KEYS.agent(AGENT)) == 10_000


async def live_by_hand(redis: Redis, number: int) -> None:
    """Sessions of the agent, with as much of them as counts here."""
    now_ms = ms_from_time_reply(await redis.time())
    ends_at_ms = now_ms + 30 * MINUTE_MS
    ids = [new_session_id() for _ in range(number)]
    fields = {"agentId": AGENT, "userId": OTHER_USER, "lastActivity": str(now_ms), "expiresAt": str(ends_at_ms)}
    async with redis.pipeline(transaction=False) as pipeline:
        for session_id in ids:
            pipeline.hset(KEYS.session(session_id), mapping=fields)  # type: ignore[arg-type]
            pipeline.pexpireat(KEYS.session(session_id), ends_at_ms)
        pipeline.zadd(KEYS.agent(AGENT), dict.fromkeys(ids, now_ms))
        pipeline.pexpire(KEYS.agent(AGENT), 30 * MINUTE_MS)
        await pipeline.execute()
