"""Listing sessions while they are created, renewed, changed and ended."""

import random
from collections import Counter
from collections.abc import Iterable

import pytest
from redis.asyncio import Redis

from service.maintenance.sweeper import Sweeper
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.sessions.counts import SessionCounts
from service.sessions.keys import SHARDS, Keys
from service.sessions.listing import START, Position, SessionFilter, SessionListing
from service.sessions.session import Session, new_session_id
from service.sessions.store import SessionStore
from tests.aging import age
from tests.conftest import AGENT, USER, create_session, new_session_events

MINUTE_MS = 60_000
ALL = SessionFilter()


@pytest.fixture
def listing(redis_client: RedisClient) -> SessionListing:
    return SessionListing(redis_client, Keys(""), SessionCounts(redis_client, Keys("")))


def ids(sessions: Iterable[Session]) -> list[str]:
    return [session.id for session in sessions]


class Churn:
    """Creates, renews, changes and ends sessions. A seed chooses which."""

    def __init__(self, store: SessionStore, client: RedisClient, redis: Redis, seed: int) -> None:
        self._store = store
        self._client = client
        self._redis = redis
        self._random = random.Random(seed)
        self.live: list[str] = []
        self.ended: set[str] = set()

    async def create(self, number: int) -> None:
        self.live += ids([await create_session(self._store) for _ in range(number)])

    async def change_some(self) -> None:
        await self.create(self._random.randrange(8))
        await self._end_some()
        for session_id in self._random.sample(self.live, len(self.live) // 4):
            await self._store.renew(session_id)
        for session_id in self._random.sample(self.live, len(self.live) // 4):
            await self._store.update_timeout(session_id, {"warning_threshold_minutes": self._random.randrange(1, 60)})
        metrics = Metrics()
        await Sweeper(self._client, Keys(""), new_session_events(metrics), metrics, retention_ms=MINUTE_MS).sweep()

    async def _end_some(self) -> None:
        for session_id in self._random.sample(self.live, min(len(self.live), self._random.randrange(6))):
            self.live.remove(session_id)
            self.ended.add(session_id)
            end = self._random.choice([self._store.delete, self._expire])
            await end(session_id)

    async def _expire(self, session_id: str) -> None:
        await age(self._redis, session_id, 31 * MINUTE_MS)


async def list_during(churn: Churn, listing: SessionListing, filter_: SessionFilter) -> tuple[list[str], set[str]]:
    """Return the listed ids in order, and those whose session had already ended."""
    listed, ended_before = list[str](), set[str]()
    after: Position | None = START
    while after is not None:
        await churn.change_some()
        page = await listing.page(filter_, 5, after)
        listed += ids(page.sessions)
        ended_before |= churn.ended & set(ids(page.sessions))
        after = page.next
    return listed, ended_before


@pytest.mark.parametrize("filter_", [ALL, SessionFilter(user_id=USER), SessionFilter(AGENT, USER)])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2, 3))])
async def test_a_listing_contains_sessions_that_stay_live_once_and_no_ended_ones(
    listing: SessionListing,
    store: SessionStore,
    redis_client: RedisClient,
    real_redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    filter_: SessionFilter,
) -> None:
    shards = random.Random(seed).sample(SHARDS, 3)
    monkeypatch.setattr(
        "service.sessions.creation.new_session_id", lambda *_: random.choice(shards) + new_session_id()[2:]
    )
    churn = Churn(store, redis_client, real_redis, seed)
    await churn.create(60)
    live_at_first = set(churn.live)

    listed, ended_before = await list_during(churn, listing, filter_)

    assert live_at_first & set(churn.live) <= set(listed)
    assert max(Counter(listed).values()) == 1
    assert ended_before == set()
