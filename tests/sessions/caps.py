"""Helpers for tests of caps on live sessions."""

import asyncio
from collections import Counter
from collections.abc import Iterable

import pytest
from redis.asyncio import Redis

from service.sessions.session import Session, new_session_id
from service.sessions.store import SessionStore
from service.settings import Settings
from service.timestamps import ms_from_time_reply
from tests.aging import age_with_indexes
from tests.attempt import attempt
from tests.conftest import AGENT, USER, create_session
from tests.redis_contents import KEYS, keys_in

MINUTE_MS = 60_000
OTHER_AGENT = "00000000-0000-4000-8000-00000000000a"
OTHER_USER = "00000000-0000-4000-8000-00000000000b"
OWNER_INDEXES = [KEYS.agent(AGENT), KEYS.user(USER)]

USER_CAP = Settings(session_max_per_user=3, session_store_timeout_seconds=10)
AGENT_CAP = Settings(session_max_per_agent=3, session_store_timeout_seconds=10)
BOTH_CAPS = Settings(session_max_per_user=3, session_max_per_agent=5, session_store_timeout_seconds=10)

each_cap = pytest.mark.parametrize("settings", [USER_CAP, AGENT_CAP], ids=["user", "agent"])


def evicting(settings: Settings) -> Settings:
    return settings.model_copy(update={"session_cap_policy": "evict"})


async def create(store: SessionStore, number: int, agent_id: str = AGENT, user_id: str = USER) -> list[Session]:
    """Create sessions one after the other."""
    return [await create_session(store, agent_id=agent_id, user_id=user_id) for _ in range(number)]


async def create_one_per_second(redis: Redis, store: SessionStore, number: int, user_id: str = USER) -> list[Session]:
    """Create sessions that are a second apart, the last one a second ago."""
    sessions = await create(store, number, user_id=user_id)
    for position, session in enumerate(sessions):
        await age_with_indexes(redis, session.id, (number - position) * 1000, KEYS.agent(AGENT), KEYS.user(user_id))
    return sessions


async def expire(redis: Redis, sessions: Iterable[Session]) -> None:
    """Make sessions expire."""
    await asyncio.gather(*(age_with_indexes(redis, session.id, 31 * MINUTE_MS, *OWNER_INDEXES) for session in sessions))


async def set_activity(redis: Redis, sessions: Iterable[Session], from_ms: int) -> None:
    """Set activities a millisecond apart, which the owner indexes do not record."""
    for position, session in enumerate(sessions):
        await redis.hset(KEYS.session(session.id), "lastActivity", str(from_ms + position))


async def outcomes_of(store: SessionStore, number: int = 1, agent_id: str = AGENT, user_id: str = USER) -> Counter[str]:
    """The outcomes of concurrent creations."""
    creations = (attempt(create_session, store, agent_id=agent_id, user_id=user_id) for _ in range(number))
    return Counter(await asyncio.gather(*creations))


async def states(store: SessionStore, sessions: Iterable[Session]) -> list[str]:
    return [await attempt(store.get, session.id) for session in sessions]


async def count_live(redis: Redis) -> int:
    """The number of sessions with a hash."""
    keys = await keys_in(redis)
    return len([key for key in keys if key.startswith("session:") and not key.endswith(":tombstone")])


async def add_pending_id(redis: Redis, ms_ago: int, *owner_indexes: str) -> str:
    """Add an id without a session to owner indexes, as of `ms_ago`."""
    session_id = new_session_id()
    now_ms = ms_from_time_reply(await redis.time())
    for owner_index in owner_indexes:
        await redis.zadd(owner_index, {session_id: now_ms - ms_ago})
        await redis.pexpire(owner_index, 10 * MINUTE_MS)
    return session_id
