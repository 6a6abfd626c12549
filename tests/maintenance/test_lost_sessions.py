"""A lost session is counted in the background, once over all replicas, when a request finds it."""

import asyncio
from unittest.mock import patch

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
WAIT_SECONDS = 30


@pytest.fixture
def lost_sessions(redis_client: RedisClient, metrics: Metrics) -> LostSessions:
    return LostSessions(redis_client, KEYS, new_session_events(metrics))


async def test_a_queued_session_is_counted(
    lost_sessions: LostSessions, lost_session: Session, metrics: Metrics
) -> None:
    lost_sessions.queue(lost_session.id)
    await lost_sessions.aclose()

    assert counted(metrics.ended) == {"lost": 1}


async def test_a_session_queued_several_times_is_counted_once(
    lost_sessions: LostSessions, lost_session: Session, redis_client: RedisClient, metrics: Metrics
) -> None:
    other_replica = LostSessions(redis_client, KEYS, new_session_events(metrics))
    lost_sessions.queue(lost_session.id)
    lost_sessions.queue(lost_session.id)
    other_replica.queue(lost_session.id)
    await asyncio.gather(lost_sessions.aclose(), other_replica.aclose())
    lost_sessions.queue(lost_session.id)
    await lost_sessions.aclose()

    assert counted(metrics.ended) == {"lost": 1}


async def test_a_lost_session_is_not_counted_again_when_it_expires(
    lost_sessions: LostSessions, lost_session: Session, redis_client: RedisClient, real_redis: Redis, metrics: Metrics
) -> None:
    lost_sessions.queue(lost_session.id)
    await lost_sessions.aclose()
    await age(real_redis, lost_session.id, 31 * MINUTE_MS)

    await Sweeper(redis_client, KEYS, new_session_events(metrics), metrics, retention_ms=60 * MINUTE_MS).sweep()

    assert counted(metrics.ended) == {"lost": 1}


async def test_a_failure_is_ignored_and_a_session_queued_meanwhile_is_counted(
    lost_session: Session, redis_client: RedisClient, metrics: Metrics
) -> None:
    async def queue_and_fail() -> None:
        interrupted.queue(lost_session.id)
        raise StoreUnavailable("the test interrupts the command")

    interrupted = LostSessions(
        Interrupted(redis_client, "mark_lost", before=queue_and_fail), KEYS, new_session_events(metrics)
    )
    interrupted.queue(AN_ID)
    await interrupted.aclose()

    assert counted(metrics.ended) == {"lost": 1}


async def test_a_session_is_counted_after_its_key_had_a_wrong_type(
    lost_sessions: LostSessions,
    lost_session: Session,
    real_redis: Redis,
    metrics: Metrics,
) -> None:
    await real_redis.set(KEYS.session(lost_session.id), "not a hash", px=MINUTE_MS)
    lost_sessions.queue(lost_session.id)
    await lost_sessions.aclose()
    await real_redis.delete(KEYS.session(lost_session.id))

    lost_sessions.queue(lost_session.id)
    await lost_sessions.aclose()

    assert counted(metrics.ended) == {"lost": 1}


async def test_the_queue_is_bounded(
    lost_sessions: LostSessions,
    store: SessionStore,
    real_redis: Redis,
    metrics: Metrics,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.maintenance.lost_sessions.MAX_QUEUED", 2)
    sessions = [await create_session(store, "a", "u") for _ in range(5)]
    await real_redis.delete(*[KEYS.session(session.id) for session in sessions])

    for session in sessions:
        lost_sessions.queue(session.id)
    await lost_sessions.aclose()

    assert counted(metrics.ended) == {"lost": 2}


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/heartbeat"), ("DELETE", "")])
async def test_a_request_for_a_lost_session_counts_it(
    redis: Redis, aiohttp_client: AiohttpClient, method: str, path: str
) -> None:
    server = ServiceServer(Settings(session_reconcile_interval_seconds=3600), redis)
    client: HttpClient = await aiohttp_client(server)
    session_id = await open_session(client)
    await redis.delete(KEYS.session(session_id))

    response = await client.request(method, f"{SESSIONS}/{session_id}{path}")

    assert response.status == 404
    async with asyncio.timeout(WAIT_SECONDS):
        while 'sessions_ended_total{reason="lost"} 1.0' not in await (await client.get("/metrics")).text():
            continue


async def test_counting_continues_after_an_error(
    redis_client: RedisClient, lost_session: Session, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    events = new_session_events(metrics)
    lost_sessions = LostSessions(redis_client, KEYS, events)
    lost_sessions.queue(AN_ID)
    with patch.object(redis_client, "execute", side_effect=TypeError("an unexpected reply")):
        await lost_sessions.aclose()
    lost_sessions.queue(lost_session.id)
    await lost_sessions.aclose()

    assert counted(metrics.ended) == {"lost": 1}
    assert "lost sessions cannot be counted; the reconciler counts them later" in caplog.messages
