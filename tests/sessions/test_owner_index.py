"""The lifetime of owner indexes, when replicas allow sessions different lifetimes."""

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
from tests.conftest import AGENT, USER, create_session, new_session_events, new_session_store
from tests.redis_contents import KEYS

MINUTE_MS = 60_000
DAY_MS = 1440 * MINUTE_MS
OWNER_INDEXES = [KEYS.agent(AGENT), KEYS.user(USER)]

LONG = Settings(session_max_timeout_minutes=14_400)
SHORT = Settings(session_max_timeout_minutes=60, session_max_duration_minutes=120)
TWENTY_DAYS: dict[str, float | bool] = {"timeout_minutes": 14_400, "max_duration_minutes": 28_800}


@pytest.fixture
def long_lived(redis_client: RedisClient) -> SessionStore:
    """A replica that allows sessions to live for twenty days."""
    return new_session_store(redis_client, LONG)


@pytest.fixture
def short_lived(redis_client: RedisClient) -> SessionStore:
    """A replica that allows sessions to live for two hours."""
    return new_session_store(redis_client, SHORT)


async def age_with_indexes(redis: Redis, by_ms: int, *sessions: Session) -> None:
    """Age sessions together with their entries in owner indexes."""
    for session in sessions:
        await age(redis, session.id, by_ms)
    for owner_index in OWNER_INDEXES:
        for session in sessions:
            await redis.zincrby(owner_index, -by_ms, session.id)
        await redis.pexpireat(owner_index, await redis.pexpiretime(owner_index) - by_ms)


async def are_indexed(redis: Redis, session: Session) -> list[bool]:
    """Whether each of the owner indexes contains the session."""
    return [await redis.zscore(owner_index, session.id) is not None for owner_index in OWNER_INDEXES]


async def test_a_replica_with_shorter_lifetimes_does_not_shorten_the_ttl_of_an_index(
    long_lived: SessionStore, short_lived: SessionStore, real_redis: Redis
) -> None:
    session = await create_session(long_lived, config=TWENTY_DAYS)

    await create_session(short_lived)

    earliest = min([await real_redis.pexpiretime(owner_index) for owner_index in OWNER_INDEXES])
    assert earliest >= session.created_at_ms + 20 * DAY_MS


@pytest.mark.parametrize("days", [4, 9, 9.99])
async def test_a_long_lived_session_stays_indexed_while_a_replica_with_shorter_lifetimes_creates_others(
    long_lived: SessionStore, short_lived: SessionStore, real_redis: Redis, days: float
) -> None:
    session = await create_session(long_lived, config=TWENTY_DAYS)
    await age_with_indexes(real_redis, round(days * DAY_MS), session)

    await create_session(short_lived)

    assert (await short_lived.get(session.id)).id == session.id
    assert await are_indexed(real_redis, session) == [True, True]


async def test_a_renewed_session_stays_indexed_until_its_maximum_duration(
    long_lived: SessionStore, short_lived: SessionStore, real_redis: Redis
) -> None:
    session = await create_session(long_lived, config=TWENTY_DAYS)
    await age_with_indexes(real_redis, round(9.9 * DAY_MS), session)
    await long_lived.heartbeat(session.id)
    await age_with_indexes(real_redis, round(9.9 * DAY_MS), session)

    await create_session(short_lived)

    assert await are_indexed(real_redis, session) == [True, True]


async def test_a_bulk_revocation_finds_a_long_lived_session(
    long_lived: SessionStore, short_lived: SessionStore, redis_client: RedisClient, real_redis: Redis
) -> None:
    session = await create_session(long_lived, config=TWENTY_DAYS)
    await age_with_indexes(real_redis, 9 * DAY_MS, session)
    await create_session(short_lived)

    revoked = await BulkRevocation(redis_client, KEYS, new_session_events(Metrics())).revoke(OwnerFilter(None, USER))

    assert revoked == Revoked(2, remainder=None)


async def test_a_session_with_a_maximum_duration_that_is_raised_later_stays_indexed(
    long_lived: SessionStore, short_lived: SessionStore, real_redis: Redis
) -> None:
    session = await create_session(short_lived)

    await long_lived.update_timeout(session.id, TWENTY_DAYS)
    await age_with_indexes(real_redis, 9 * DAY_MS, session)
    await create_session(short_lived)

    assert await are_indexed(real_redis, session) == [True, True]


async def test_an_entry_that_a_replica_with_shorter_lifetimes_restores_stays(
    long_lived: SessionStore, short_lived: SessionStore, redis_client: RedisClient, real_redis: Redis
) -> None:
    session = await create_session(long_lived, config=TWENTY_DAYS)
    created_at = session.created_at_ms - 9 * DAY_MS
    await real_redis.delete(*OWNER_INDEXES)

    commands = [
        ADD_TO_INDEX.command(
            OwnerIndexKeys(owner_index),
            id=session.id,
            owner_index_lifetime_ms=SHORT.owner_index_lifetime_ms,
            created_at=created_at,
        )
        for owner_index in OWNER_INDEXES
    ]
    await redis_client.execute(*commands)
    await create_session(short_lived)

    assert await are_indexed(real_redis, session) == [True, True]


async def test_adding_an_id_again_keeps_its_score(long_lived: SessionStore, real_redis: Redis) -> None:
    session = await create_session(long_lived)
    before = [await real_redis.zscore(owner_index, session.id) for owner_index in OWNER_INDEXES]

    await long_lived.update_timeout(session.id, TWENTY_DAYS)

    assert [await real_redis.zscore(owner_index, session.id) for owner_index in OWNER_INDEXES] == before


async def test_an_index_without_a_ttl_gets_one(long_lived: SessionStore, real_redis: Redis) -> None:
    await create_session(long_lived)
    await real_redis.persist(KEYS.user(USER))

    await create_session(long_lived)

    assert await real_redis.pexpiretime(KEYS.user(USER)) > 0
