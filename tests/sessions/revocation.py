"""Helpers for tests of bulk revocation."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from service.sessions.revocation import OwnerFilter
from service.sessions.scripts import ADD_TO_INDEX, CREATE
from service.sessions.session import Session, new_session_id
from service.sessions.store import SessionStore
from service.settings import Settings
from service.timestamps import ms_from_time_reply
from tests.attempt import attempt
from tests.conftest import AGENT, USER, create_session
from tests.redis_contents import KEYS, set_config
from tests.test_walkthrough import MINUTE_MS

OTHER_AGENT = "00000000-0000-4000-8000-00000000000a"
OTHER_USER = "00000000-0000-4000-8000-00000000000b"
USER_FILTER = OwnerFilter(None, USER)
AGENT_FILTER = OwnerFilter(AGENT, None)
BOTH_FILTER = OwnerFilter(AGENT, USER)

each_filter = pytest.mark.parametrize(
    "filter_", [USER_FILTER, AGENT_FILTER, BOTH_FILTER], ids=["user", "agent", "both"]
)


async def create(store: SessionStore, number: int, agent_id: str = AGENT, user_id: str = USER) -> list[Session]:
    return await asyncio.gather(*(create_session(store, agent_id=agent_id, user_id=user_id) for _ in range(number)))


async def index_other_ids(redis: Redis, owner_index: str, number: int) -> list[str]:
    """Add ids of other owners to an index, older than all others."""
    ids = [new_session_id() for _ in range(number)]
    an_hour_ago_ms = ms_from_time_reply(await redis.time()) - 60 * MINUTE_MS
    await redis.zadd(owner_index, {session_id: an_hour_ago_ms + position for position, session_id in enumerate(ids)})
    await redis.pexpire(owner_index, 60 * MINUTE_MS)
    return ids


async def states(store: SessionStore, sessions: Iterable[Session]) -> Counter[str]:
    return Counter([await attempt(store.get, session.id) for session in sessions])


class PendingCreation:
    """A creation, one command at a time."""

    def __init__(self, redis: Redis, session_id: str, settings: Settings) -> None:
        self.id = session_id
        self._redis = redis
        self._settings = settings

    async def add_to(self, owner_index: str) -> None:
        await self._redis.eval(ADD_TO_INDEX.text, 1, owner_index, self.id, self._settings.owner_index_lifetime_ms, "")

    async def create(self) -> str:
        command = CREATE.command(
            KEYS.of(self.id),
            id=self.id,
            agent_id=AGENT,
            user_id=USER,
            timeout_minutes="30",
            auto_renew="true",
            max_duration_minutes="720",
            warning_threshold_minutes="5",
            metadata="{}",
            retention_ms=self._settings.retention_ms,
        )
        status, *_ = await self._redis.eval(CREATE.text, len(CREATE.keys), *map(str, command[3:]))
        return str(status, "ascii")


@asynccontextmanager
async def out_of_memory(redis: Redis) -> AsyncIterator[None]:
    await set_config(redis, "maxmemory", 1)
    try:
        yield
    finally:
        await set_config(redis, "maxmemory", 0)
