"""Deleting a session: nothing of it stays, so it is unknown from then on."""

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
from tests.sessions.evidence import KEYS, contents, scores_of

MINUTE_MS = 60_000


async def test_nothing_stays_of_a_deleted_session(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await store.delete(session.id)

    assert await contents(real_redis) == {}


async def test_it_is_unknown_from_then_on(store: SessionStore, session: Session) -> None:
    await store.delete(session.id)

    answers = [
        await attempt(store.get, session.id),
        await attempt(store.heartbeat, session.id),
        await attempt(store.renew, session.id),
        await attempt(store.update_timeout, session.id, {"timeout_minutes": 60}),
        await attempt(store.delete, session.id),
    ]
    assert answers == ["missing"] * 5


async def test_other_sessions_of_its_user_and_its_agent_stay(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    other = await create_session(store)

    await store.delete(session.id)

    assert await attempt(store.get, other.id) == "live"
    assert await real_redis.zrange(KEYS.user(USER), 0, -1) == [other.id.encode()]
    assert await real_redis.zrange(KEYS.agent(AGENT), 0, -1) == [other.id.encode()]


async def test_others_in_its_shard_keep_their_place_in_the_indexes(
    store: SessionStore, session: Session, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "service.sessions.creation.new_session_id", lambda *_: f"{session.id[:2]}90c3cc-0d44-4b50-8888-8dd25736052a"
    )
    neighbour = await create_session(store)
    before = await scores_of(real_redis, neighbour)

    await store.delete(session.id)

    assert await scores_of(real_redis, neighbour) == before


async def test_an_expired_session_cannot_be_deleted_and_stays_expired(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)

    answers = [await attempt(store.delete, session.id), await attempt(store.get, session.id)]

    assert answers == ["expired", "expired"]


async def test_a_refused_deletion_changes_nothing(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)
    before = await contents(real_redis)

    assert await attempt(store.delete, session.id) == "expired"

    assert await contents(real_redis) == before


async def test_it_is_deleted_though_its_lookups_are_out_of_reach(
    store: SessionStore, session: Session, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = redis_client.execute

    async def change_of_no_lookup(*commands: Command) -> list[Reply]:
        if commands[0][0] == "ZREM":
            raise StoreUnavailable("the slot of the lookup has no server")
        return await change(*commands)

    monkeypatch.setattr(redis_client, "execute", change_of_no_lookup)

    assert await attempt(store.delete, session.id) == "deleted"
    assert await attempt(store.get, session.id) == "missing"


async def test_of_twenty_deletions_one_wins(store: SessionStore, session: Session) -> None:
    answers = await asyncio.gather(*(attempt(store.delete, session.id) for _ in range(20)))

    assert Counter(answers) == {"deleted": 1, "missing": 19}


async def test_a_session_deleted_among_heartbeats_is_gone(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    heartbeats = [attempt(store.heartbeat, session.id) for _ in range(20)]
    heartbeats.insert(10, attempt(store.delete, session.id))

    answers = await asyncio.gather(*heartbeats)

    assert Counter(answers)["deleted"] == 1
    assert set(answers) <= {"deleted", "live", "missing"}
    assert await contents(real_redis) == {}


async def test_a_session_deleted_among_renewals_and_changes_is_gone(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    renewals = [attempt(store.renew, session.id) for _ in range(10)]
    changes = [attempt(store.update_timeout, session.id, {"timeout_minutes": 60}) for _ in range(10)]

    answers = await asyncio.gather(*renewals, attempt(store.delete, session.id), *changes)

    assert Counter(answers)["deleted"] == 1
    assert set(answers) <= {"deleted", "live", "missing"}
    assert await contents(real_redis) == {}


async def test_a_session_deleted_among_readings_is_either_whole_or_unknown(
    store: SessionStore, session: Session
) -> None:
    readings = [attempt(store.get, session.id) for _ in range(20)]
    readings.insert(10, attempt(store.delete, session.id))

    answers = await asyncio.gather(*readings)

    assert Counter(answers)["deleted"] == 1
    assert set(answers) <= {"deleted", "live", "missing"}
