"""Sessions that go by other ids than UUIDs: they live, are found, told of and ended like all others."""

import re

import pytest
from redis.asyncio import Redis

from service.keeping.sweeper import Sweeper
from service.lanes.lane import Lane
from service.life.sessions import IdFormat, Session
from service.life.store import Store
from service.listing import cursor
from service.listing.census import Census
from service.listing.directory import Directory, Position, Wanted
from service.listing.indexes import Entry
from service.listing.revocation import Rest, Revocation, Whose
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.aging import age
from tests.attempt import attempt
from tests.conftest import AGENT, USER, lifecycle_into, store_on
from tests.store.evidence import KEYS, fields_of, keys_in, scores_of

MINUTE_MS = 60_000
DIGITS = {"hex128": 32, "hex256": 64}


@pytest.fixture(params=DIGITS)
def id_format(request: pytest.FixtureRequest) -> IdFormat:
    chosen: IdFormat = request.param
    return chosen


@pytest.fixture
def settings(id_format: IdFormat) -> Settings:
    return Settings(session_id_format=id_format)


async def test_an_id_is_of_the_format_that_is_set(session: Session, id_format: IdFormat) -> None:
    assert re.fullmatch(f"[0-9a-f]{{{DIGITS[id_format]}}}", session.id)


async def test_it_lies_in_the_shard_of_its_first_two_digits(session: Session, real_redis: Redis) -> None:
    assert (await fields_of(real_redis, session))["userId"] == USER
    assert None not in (await scores_of(real_redis, session)).values()
    assert {key.partition("}")[0] for key in await keys_in(real_redis) if key.startswith("session:")} == {
        f"session:{{{session.id[:2]}"
    }


@pytest.mark.parametrize("other", ["uuid", "hex128", "hex256"])
async def test_a_replica_with_another_format_knows_it(lane: Lane, session: Session, other: IdFormat) -> None:
    elsewhere = store_on(lane, Settings(session_id_format=other))

    assert (await elsewhere.renew(session.id)).id == session.id


async def test_it_is_listed(lane: Lane, store: Store, session: Session) -> None:
    second = await store.create(AGENT, USER, {}, b"{}")

    page = await Directory(lane, KEYS, Census(lane, KEYS)).page(Wanted(user_id=USER), 10)

    assert {listed.id for listed in page.sessions} == {session.id, second.id}


async def test_it_is_expired_after_its_end_and_swept(
    lane: Lane, store: Store, session: Session, settings: Settings, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)
    metrics = Metrics()

    await Sweeper(lane, KEYS, lifecycle_into(metrics), metrics, retention_ms=settings.retention_ms).round()

    assert await attempt(store.get, session.id) == "expired"
    assert await keys_in(real_redis) == [KEYS.tombstone(session.id)]


async def test_deleted_it_leaves_nothing(store: Store, session: Session, real_redis: Redis) -> None:
    await store.delete(session.id)

    assert await attempt(store.get, session.id) == "missing"
    assert await keys_in(real_redis) == []


async def test_it_is_ended_with_all_of_its_users(lane: Lane, store: Store, session: Session) -> None:
    revoked = await Revocation(lane, KEYS, lifecycle_into(Metrics())).revoke(Whose(None, USER))

    assert revoked.number == 1
    assert await attempt(store.get, session.id) == "missing"


def test_a_cursor_has_room_for_the_longest() -> None:
    place = Entry("1705312800000.1234", "f" * 64)
    walk = Wanted(AGENT, USER, near_expiration=True), Position(0, *place)
    revocation = Whose(AGENT, USER), Rest(1, place, place)

    assert cursor.read(cursor.written(*walk)) == walk
    assert cursor.read_rest(cursor.written_of_rest(*revocation)) == revocation
