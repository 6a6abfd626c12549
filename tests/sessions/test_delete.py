"""Deleting a session removes all of its keys, so that it is unknown from then on."""

import asyncio
from collections import Counter

import pytest
from redis.asyncio import Redis

from service.errors import StoreUnavailable
from service.redis_client.client import RedisClient, Reply
from service.redis_client.scripts import Command
from service.sessions.session import Session
from service.sessions.store import SessionStore
from tests.aging import age
from tests.attempt import attempt
from tests.conftest import AGENT, USER, create_session
from tests.redis_contents import KEYS, contents, scores_of

MINUTE_MS = 60_000


async def test_a_deletion_removes_all_keys(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await store.delete(session.id)

    assert await contents(real_redis) == {}


async def test_a_deleted_session_is_unknown_to_every_verb(store: SessionStore, session: Session) -> None:
    await store.delete(session.id)

    outcomes = [
        await attempt(store.get, session.id),
        await attempt(store.heartbeat, session.id),
        await attempt(store.renew, session.id),
        await attempt(store.update_timeout, session.id, {"timeout_minutes": 60}),
        await attempt(store.delete, session.id),
    ]
    assert outcomes == ["missing"] * 5


async def test_a_deletion_keeps_other_sessions_of_the_user_and_the_agent(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    other = await create_session(store)

    await store.delete(session.id)

    assert await attempt(store.get, other.id) == "live"
    assert await real_redis.zrange(KEYS.user(USER), 0, -1) == [other.id.encode()]
    assert await real_redis.zrange(KEYS.agent(AGENT), 0, -1) == [other.id.encode()]


async def test_a_deletion_keeps_other_sessions_in_the_indexes_of_the_shard(
    store: SessionStore, session: Session, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "service.sessions.creation.new_session_id", lambda *_: f"{session.id[:2]}90c3cc-0d44-4b50-8888-8dd25736052a"
    )
    neighbour = await create_session(store)
    before = await scores_of(real_redis, neighbour)

    await store.delete(session.id)

    assert await scores_of(real_redis, neighbour) == before


async def test_an_expired_session_cannot_be_deleted(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)

    outcomes = [await attempt(store.delete, session.id), await attempt(store.get, session.id)]

    assert outcomes == ["expired", "expired"]


async def test_a_failed_deletion_changes_nothing(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)
    before = await contents(real_redis)

    assert await attempt(store.delete, session.id) == "expired"

    assert await contents(real_redis) == before


async def test_a_deletion_succeeds_if_the_owner_indexes_are_unavailable(
    store: SessionStore, session: Session, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = redis_client.execute

    async def execute_without_indexes(*commands: Command) -> list[Reply]:
        if commands[0][0] == "ZREM":
            raise StoreUnavailable("the slot of the index has no server")
        return await execute(*commands)

    monkeypatch.setattr(redis_client, "execute", execute_without_indexes)

    assert await attempt(store.delete, session.id) == "deleted"
    assert await attempt(store.get, session.id) == "missing"


async def test_only_one_of_twenty_deletions_succeeds(store: SessionStore, session: Session) -> None:
    outcomes = await asyncio.gather(*(attempt(store.delete, session.id) for _ in range(20)))

    assert Counter(outcomes) == {"deleted": 1, "missing": 19}


async def test_a_deletion_among_heartbeats_removes_all_keys(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    heartbeats = [attempt(store.heartbeat, session.id) for _ in range(20)]
    heartbeats.insert(10, attempt(store.delete, session.id))

    outcomes = await asyncio.gather(*heartbeats)

    assert Counter(outcomes)["deleted"] == 1
    assert set(outcomes) <= {"deleted", "live", "missing"}
    assert await contents(real_redis) == {}


async def test_a_deletion_among_renewals_and_changes_removes_all_keys(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    renewals = [attempt(store.renew, session.id) for _ in range(10)]
    changes = [attempt(store.update_timeout, session.id, {"timeout_minutes": 60}) for _ in range(10)]

    outcomes = await asyncio.gather(*renewals, attempt(store.delete, session.id), *changes)

    assert Counter(outcomes)["deleted"] == 1
    assert set(outcomes) <= {"deleted", "live", "missing"}
    assert await contents(real_redis) == {}


async def test_a_deletion_among_reads_leaves_no_partial_session(store: SessionStore, session: Session) -> None:
    reads = [attempt(store.get, session.id) for _ in range(20)]
    reads.insert(10, attempt(store.delete, session.id))

    outcomes = await asyncio.gather(*reads)

    assert Counter(outcomes)["deleted"] == 1
    assert set(outcomes) <= {"deleted", "live", "missing"}
