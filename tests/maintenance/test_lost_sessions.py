"""A session that a request meets as lost is counted at once, once over all replicas, and not in the request's way."""

import asyncio

import pytest
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.errors import StoreUnavailable
from service.maintenance.lost_sessions import LostSessions
from service.maintenance.sweeper import Sweeper
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.sessions.session import Session
from service.sessions.store import SessionStore
from service.settings import Settings
from tests.aging import age
from tests.conftest import HttpClient, ServiceServer, create_session, new_session_events
from tests.counted import counted
from tests.interruption import Interrupted
from tests.redis_contents import KEYS
from tests.test_walkthrough import SESSIONS, open_session

MINUTE_MS = 60_000
AN_ID = "ab90c3cc-0d44-4b50-8888-8dd25736052a"
SOON = 10
"""Seconds."""


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def losses(redis_client: RedisClient, metrics: Metrics) -> LostSessions:
    return LostSessions(redis_client, KEYS, new_session_events(metrics))


@pytest.fixture
async def lost(session: Session, real_redis: Redis) -> Session:
    await real_redis.delete(KEYS.session(session.id))
    return session


async def test_one_that_was_met_is_counted(losses: LostSessions, lost: Session, metrics: Metrics) -> None:
    losses.queue(lost.id)
    await losses.aclose()

    assert counted(metrics.ended) == {"lost": 1}


async def test_it_is_counted_once_however_many_meet_it(
    losses: LostSessions, lost: Session, redis_client: RedisClient, metrics: Metrics
) -> None:
    elsewhere = LostSessions(redis_client, KEYS, new_session_events(metrics))
    losses.queue(lost.id)
    losses.queue(lost.id)
    elsewhere.queue(lost.id)
    await asyncio.gather(losses.aclose(), elsewhere.aclose())
    losses.queue(lost.id)
    await losses.aclose()

    assert counted(metrics.ended) == {"lost": 1}


async def test_at_its_end_it_is_not_counted_as_another(
    losses: LostSessions, lost: Session, redis_client: RedisClient, real_redis: Redis, metrics: Metrics
) -> None:
    losses.queue(lost.id)
    await losses.aclose()
    await age(real_redis, lost.id, 31 * MINUTE_MS)

    await Sweeper(redis_client, KEYS, new_session_events(metrics), metrics, retention_ms=60 * MINUTE_MS).sweep()

    assert counted(metrics.ended) == {"lost": 1}


async def test_trouble_is_nobodys_and_what_was_met_meanwhile_is_counted(
    lost: Session, redis_client: RedisClient, metrics: Metrics
) -> None:
    async def meet_and_fail() -> None:
        here.queue(lost.id)
        raise StoreUnavailable("it is a test")

    here = LostSessions(Interrupted(redis_client, "mark_lost", before=meet_and_fail), KEYS, new_session_events(metrics))
    here.queue(AN_ID)
    await here.aclose()

    assert counted(metrics.ended) == {"lost": 1}


async def test_a_tampered_key_is_nobodys_trouble(
    losses: LostSessions, lost: Session, real_redis: Redis, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    await real_redis.set(KEYS.session(lost.id), "not ours", px=MINUTE_MS)
    losses.queue(lost.id)
    await losses.aclose()
    await real_redis.delete(KEYS.session(lost.id))

    losses.queue(lost.id)
    await losses.aclose()

    assert "a lost session cannot be counted" in caplog.text
    assert counted(metrics.ended) == {"lost": 1}


async def test_no_more_than_a_bound_wait(
    losses: LostSessions, store: SessionStore, real_redis: Redis, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.maintenance.lost_sessions.MAX_QUEUED", 2)
    sessions = [await create_session(store, "a", "u") for _ in range(5)]
    await real_redis.delete(*[KEYS.session(session.id) for session in sessions])

    for session in sessions:
        losses.queue(session.id)
    await losses.aclose()

    assert counted(metrics.ended) == {"lost": 2}


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/heartbeat"), ("DELETE", "")])
async def test_a_request_that_meets_one_has_it_counted(
    redis: Redis, aiohttp_client: AiohttpClient, method: str, path: str
) -> None:
    server = ServiceServer(Settings(session_reconcile_interval_seconds=3600), redis)
    client: HttpClient = await aiohttp_client(server)
    session_id = await open_session(client)
    await redis.delete(KEYS.session(session_id))

    response = await client.request(method, f"{SESSIONS}/{session_id}{path}")

    assert response.status == 404
    async with asyncio.timeout(SOON):
        while 'sessions_ended_total{reason="lost"} 1.0' not in await (await client.get("/metrics")).text():
            continue
