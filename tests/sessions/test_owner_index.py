"""How long the lookups know a session, where replicas differ in how long they let sessions live."""

import pytest
from redis.asyncio import Redis

from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.sessions.keys import OwnerIndexKeys
from service.sessions.revocation import BulkRevocation, OwnerFilter, Revoked
from service.sessions.scripts import ADD_TO_INDEX
from service.sessions.session import Session
from service.sessions.store import SessionStore
from service.settings import Settings
from tests.aging import age
from tests.conftest import AGENT, USER, create_session, events_into, store_on
from tests.sessions.evidence import KEYS

MINUTE_MS = 60_000
DAY_MS = 1440 * MINUTE_MS
LOOKUPS = [KEYS.agent(AGENT), KEYS.user(USER)]

WIDE = Settings(session_max_timeout_minutes=14_400)
NARROW = Settings(session_max_timeout_minutes=60, session_max_duration_minutes=120)
A_LONG_LIFE: dict[str, float | bool] = {"timeout_minutes": 14_400, "max_duration_minutes": 28_800}


@pytest.fixture
def wide(redis_client: RedisClient) -> SessionStore:
    """A replica that lets sessions live for twenty days."""
    return store_on(redis_client, WIDE)


@pytest.fixture
def narrow(redis_client: RedisClient) -> SessionStore:
    """A replica that lets sessions live for two hours."""
    return store_on(redis_client, NARROW)


async def let_pass(redis: Redis, by_ms: int, *sessions: Session) -> None:
    """Age sessions and all that their lookups know of them."""
    for session in sessions:
        await age(redis, session.id, by_ms)
    for owner_index in LOOKUPS:
        for session in sessions:
            await redis.zincrby(owner_index, -by_ms, session.id)
        await redis.pexpireat(owner_index, await redis.pexpiretime(owner_index) - by_ms)


async def knowing(redis: Redis, session: Session) -> list[bool]:
    """Whether each of its lookups knows a session."""
    return [await redis.zscore(owner_index, session.id) is not None for owner_index in LOOKUPS]


async def test_a_replica_with_tighter_settings_does_not_bring_the_end_of_a_lookup_nearer(
    wide: SessionStore, narrow: SessionStore, real_redis: Redis
) -> None:
    session = await create_session(wide, config=A_LONG_LIFE)

    await create_session(narrow)

    nearest = min([await real_redis.pexpiretime(owner_index) for owner_index in LOOKUPS])
    assert nearest >= session.created_at_ms + 20 * DAY_MS


@pytest.mark.parametrize("days", [4, 9, 9.99])
async def test_a_session_is_known_for_its_life_although_a_replica_with_tighter_settings_creates_others(
    wide: SessionStore, narrow: SessionStore, real_redis: Redis, days: float
) -> None:
    session = await create_session(wide, config=A_LONG_LIFE)
    await let_pass(real_redis, round(days * DAY_MS), session)

    await create_session(narrow)

    assert (await narrow.get(session.id)).id == session.id
    assert await knowing(real_redis, session) == [True, True]


async def test_a_renewed_one_is_known_until_its_maximum_duration(
    wide: SessionStore, narrow: SessionStore, real_redis: Redis
) -> None:
    session = await create_session(wide, config=A_LONG_LIFE)
    await let_pass(real_redis, round(9.9 * DAY_MS), session)
    await wide.heartbeat(session.id)
    await let_pass(real_redis, round(9.9 * DAY_MS), session)

    await create_session(narrow)

    assert await knowing(real_redis, session) == [True, True]


async def test_a_bulk_revocation_finds_it(
    wide: SessionStore, narrow: SessionStore, redis_client: RedisClient, real_redis: Redis
) -> None:
    session = await create_session(wide, config=A_LONG_LIFE)
    await let_pass(real_redis, 9 * DAY_MS, session)
    await create_session(narrow)

    revoked = await BulkRevocation(redis_client, KEYS, events_into(Metrics())).revoke(OwnerFilter(None, USER))

    assert revoked == Revoked(2, remainder=None)


async def test_a_session_created_under_tighter_settings_is_known_for_the_life_that_it_is_given_later(
    wide: SessionStore, narrow: SessionStore, real_redis: Redis
) -> None:
    session = await create_session(narrow)

    await wide.update_timeout(session.id, A_LONG_LIFE)
    await let_pass(real_redis, 9 * DAY_MS, session)
    await create_session(narrow)

    assert await knowing(real_redis, session) == [True, True]


async def test_what_a_replica_with_tighter_settings_puts_back_stays(
    wide: SessionStore, narrow: SessionStore, redis_client: RedisClient, real_redis: Redis
) -> None:
    session = await create_session(wide, config=A_LONG_LIFE)
    created_at = session.created_at_ms - 9 * DAY_MS
    await real_redis.delete(*LOOKUPS)

    put_back = [
        ADD_TO_INDEX.command(
            OwnerIndexKeys(owner_index),
            id=session.id,
            owner_index_lifetime_ms=NARROW.owner_index_lifetime_ms,
            created_at=created_at,
        )
        for owner_index in LOOKUPS
    ]
    await redis_client.execute(*put_back)
    await create_session(narrow)

    assert await knowing(real_redis, session) == [True, True]


async def test_one_that_is_told_of_again_keeps_its_place(wide: SessionStore, real_redis: Redis) -> None:
    session = await create_session(wide)
    before = [await real_redis.zscore(owner_index, session.id) for owner_index in LOOKUPS]

    await wide.update_timeout(session.id, A_LONG_LIFE)

    assert [await real_redis.zscore(owner_index, session.id) for owner_index in LOOKUPS] == before


async def test_a_lookup_that_lost_its_end_is_given_one(wide: SessionStore, real_redis: Redis) -> None:
    await create_session(wide)
    await real_redis.persist(KEYS.user(USER))

    await create_session(wide)

    assert await real_redis.pexpiretime(KEYS.user(USER)) > 0
