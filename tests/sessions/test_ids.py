"""Sessions whose ids are hex digits instead of UUIDs."""

import re

import pytest
from redis.asyncio import Redis

from service.maintenance.sweeper import Sweeper
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.sessions.counts import SessionCounts
from service.sessions.cursors import Cursors
from service.sessions.index_scan import Entry
from service.sessions.listing import Position, SessionFilter, SessionListing
from service.sessions.revocation import BulkRevocation, OwnerFilter, Remainder
from service.sessions.session import Session
from service.sessions.store import SessionStore
from service.settings import Settings
from service.settings.sessions import IdFormat
from tests.aging import age
from tests.attempt import attempt
from tests.conftest import AGENT, SECRET, USER, create_session, new_session_events, new_session_store
from tests.redis_contents import KEYS, fields_of, keys_in, scores_of

MINUTE_MS = 60_000
DIGITS = {"hex128": 32, "hex256": 64}


@pytest.fixture(params=DIGITS)
def id_format(request: pytest.FixtureRequest) -> IdFormat:
    id_format: IdFormat = request.param
    return id_format


@pytest.fixture
def settings(id_format: IdFormat) -> Settings:
    return Settings(session_id_format=id_format)


async def test_an_id_has_the_configured_format(session: Session, id_format: IdFormat) -> None:
    assert re.fullmatch(f"[0-9a-f]{{{DIGITS[id_format]}}}", session.id)


async def test_a_session_is_in_the_shard_of_its_first_two_digits(session: Session, real_redis: Redis) -> None:
    assert (await fields_of(real_redis, session))["userId"] == USER
    assert None not in (await scores_of(real_redis, session)).values()
    assert {key.partition("}")[0] for key in await keys_in(real_redis) if key.startswith("session:")} == {
        f"session:{{{session.id[:2]}"
    }


@pytest.mark.parametrize("other", ["uuid", "hex128", "hex256"])
async def test_a_replica_with_another_format_accepts_the_id(
    redis_client: RedisClient, session: Session, other: IdFormat
) -> None:
    replica = new_session_store(redis_client, Settings(session_id_format=other))

    assert (await replica.renew(session.id)).id == session.id


async def test_the_session_is_listed(redis_client: RedisClient, store: SessionStore, session: Session) -> None:
    second = await create_session(store)

    page = await SessionListing(redis_client, KEYS, SessionCounts(redis_client, KEYS)).page(
        SessionFilter(user_id=USER), 10
    )

    assert {listed.id for listed in page.sessions} == {session.id, second.id}


async def test_the_session_expires_and_is_swept(
    redis_client: RedisClient, store: SessionStore, session: Session, settings: Settings, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)
    metrics = Metrics()

    await Sweeper(redis_client, KEYS, new_session_events(metrics), metrics, retention_ms=settings.retention_ms).sweep()

    assert await attempt(store.get, session.id) == "expired"
    assert await keys_in(real_redis) == [KEYS.tombstone(session.id)]


async def test_a_deletion_removes_all_keys(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await store.delete(session.id)

    assert await attempt(store.get, session.id) == "missing"
    assert await keys_in(real_redis) == []


async def test_a_bulk_revocation_ends_the_session(
    redis_client: RedisClient, store: SessionStore, session: Session
) -> None:
    revoked = await BulkRevocation(redis_client, KEYS, new_session_events(Metrics())).revoke(OwnerFilter(None, USER))

    assert revoked.number == 1
    assert await attempt(store.get, session.id) == "missing"


def test_a_cursor_has_room_for_the_longest_ids() -> None:
    entry = Entry("1705312800000.1234", "f" * 64)
    listing = SessionFilter(AGENT, USER, near_expiration=True), Position(0, *entry)
    revocation = OwnerFilter(AGENT, USER), Remainder(1, entry, entry)

    cursors = Cursors(SECRET, USER)

    assert cursors.decode_position(cursors.encode_position(*listing)) == listing
    assert cursors.decode_remainder(cursors.encode_remainder(*revocation)) == revocation
