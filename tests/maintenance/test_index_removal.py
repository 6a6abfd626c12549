"""Ids leave their lookups on proof that their sessions are gone, and stay without it."""

import asyncio
from collections.abc import Iterable

import pytest
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.errors import StoreUnavailable
from service.maintenance.index_repair import IndexRemoval
from service.redis_client.client import RedisClient, Reply
from service.redis_client.pipeline import Pipeline
from service.redis_client.scripts import Command
from service.sessions.counts import SessionCounts
from service.sessions.keys import REVOCATION_MARKER_MS
from service.sessions.listing import SessionFilter, SessionListing
from service.sessions.session import Session
from service.settings import Settings
from tests.aging import age
from tests.conftest import AGENT, USER, HttpClient, ServiceServer
from tests.interruption import Interrupted
from tests.redis_contents import KEYS, contents
from tests.test_walkthrough import SESSIONS, open_session

MINUTE_MS = 60_000
AN_ID = "ab90c3cc-0d44-4b50-8888-8dd25736052a"
ANOTHER_ID = "cd90c3cc-0d44-4b50-8888-8dd25736052a"
LOOKUP = KEYS.user(USER)
SOON = 10
"""Seconds."""


@pytest.fixture
def delisting(redis_client: RedisClient) -> IndexRemoval:
    return IndexRemoval(redis_client, KEYS)


async def list_by_hand(redis: Redis, *session_ids: str, ms_ago: int = 0) -> None:
    seconds, _ = await redis.time()
    await redis.zadd(LOOKUP, dict.fromkeys(session_ids, seconds * 1000 - ms_ago))
    await redis.pexpire(LOOKUP, MINUTE_MS)


async def listed(redis: Redis) -> set[str]:
    entries: list[bytes] = await redis.zrange(LOOKUP, 0, -1)  # type: ignore[assignment]
    return {session_id.decode() for session_id in entries}


def suspects_of(session: Session) -> list[tuple[str, str]]:
    return [(LOOKUP, session.id)]


async def change_of_no_lookup(redis_client: Pipeline, *commands: Command) -> list[Reply]:
    if commands[0][0] == "ZREM":
        raise StoreUnavailable("the slot of the lookup has no server")
    return await redis_client.execute_ordered(*commands)


async def settled(delisting: IndexRemoval, session_ids: Iterable[str]) -> None:
    delisting.queue_missing(LOOKUP, session_ids)
    await delisting.process_queue()


# What is known to have lived


async def test_a_deleted_session_leaves_though_it_was_listed_just_now(
    delisting: IndexRemoval, real_redis: Redis
) -> None:
    await list_by_hand(real_redis, AN_ID)

    delisting.queue_seen_live([(LOOKUP, AN_ID)])
    await delisting.process_queue()

    assert await listed(real_redis) == set()


async def test_what_was_left_behind_leaves_both_its_lookups(
    delisting: IndexRemoval, session: Session, real_redis: Redis
) -> None:
    await real_redis.delete(*KEYS.of(session.id))

    delisting.queue_ended(session.id, AGENT, USER)
    await delisting.process_queue()

    assert await contents(real_redis) == {}


async def test_an_ended_session_leaves(delisting: IndexRemoval, session: Session, real_redis: Redis) -> None:
    await age(real_redis, session.id, 31 * MINUTE_MS)

    delisting.queue_seen_live(suspects_of(session))
    await delisting.process_queue()

    assert await listed(real_redis) == set()


async def test_a_living_session_stays(delisting: IndexRemoval, session: Session, real_redis: Redis) -> None:
    delisting.queue_seen_live(suspects_of(session))
    await delisting.process_queue()

    assert await listed(real_redis) == {session.id}


async def test_a_lost_session_stays_until_its_end(delisting: IndexRemoval, session: Session, real_redis: Redis) -> None:
    await real_redis.delete(KEYS.session(session.id))

    delisting.queue_seen_live(suspects_of(session))
    await delisting.process_queue()

    assert await listed(real_redis) == {session.id}


# What a reader met


async def test_what_was_listed_long_ago_and_is_not_there_leaves(delisting: IndexRemoval, real_redis: Redis) -> None:
    await list_by_hand(real_redis, AN_ID, ms_ago=REVOCATION_MARKER_MS + 2000)

    await settled(delisting, [AN_ID])

    assert await listed(real_redis) == set()


async def test_an_ended_session_that_was_met_leaves_though_it_was_listed_just_now(
    delisting: IndexRemoval, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 31 * MINUTE_MS)

    await settled(delisting, [session.id])

    assert await listed(real_redis) == set()


async def test_what_may_be_on_its_way_stays(delisting: IndexRemoval, real_redis: Redis) -> None:
    await list_by_hand(real_redis, AN_ID, ms_ago=REVOCATION_MARKER_MS - MINUTE_MS)

    await settled(delisting, [AN_ID])

    assert await listed(real_redis) == {AN_ID}


async def test_what_has_left_already_is_no_trouble(delisting: IndexRemoval, real_redis: Redis) -> None:
    await settled(delisting, [AN_ID])

    assert await contents(real_redis) == {}


async def test_what_no_reader_met_stays(delisting: IndexRemoval, real_redis: Redis) -> None:
    await list_by_hand(real_redis, AN_ID, ANOTHER_ID, ms_ago=2 * REVOCATION_MARKER_MS)

    await settled(delisting, [AN_ID])

    assert await listed(real_redis) == {ANOTHER_ID}


async def test_more_than_a_batch_is_settled_at_once(delisting: IndexRemoval, real_redis: Redis) -> None:
    ids = [f"ab90c3cc-0d44-4b50-8888-{number:012x}" for number in range(250)]
    await list_by_hand(real_redis, *ids, ms_ago=2 * REVOCATION_MARKER_MS)

    await settled(delisting, ids)

    assert await listed(real_redis) == set()


async def test_what_was_settled_is_out_of_mind(delisting: IndexRemoval, real_redis: Redis) -> None:
    await settled(delisting, [AN_ID])
    await list_by_hand(real_redis, AN_ID, ms_ago=2 * REVOCATION_MARKER_MS)

    await delisting.process_queue()

    assert await listed(real_redis) == {AN_ID}


async def test_no_more_than_a_bound_is_kept_in_mind(
    delisting: IndexRemoval, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.maintenance.index_repair.MAX_QUEUED_BY_READERS", 2)
    ids = [f"ab90c3cc-0d44-4b50-8888-{number:012x}" for number in range(5)]
    await list_by_hand(real_redis, *ids, ms_ago=2 * REVOCATION_MARKER_MS)

    await settled(delisting, ids)

    assert len(await listed(real_redis)) == 3


async def test_what_readers_meet_leaves_room_for_what_was_left_behind(
    delisting: IndexRemoval, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.maintenance.index_repair.MAX_QUEUED_BY_READERS", 1)
    await list_by_hand(real_redis, AN_ID)

    delisting.queue_missing(LOOKUP, [ANOTHER_ID])
    delisting.queue_seen_live([(LOOKUP, AN_ID)])
    await delisting.process_queue()

    assert await listed(real_redis) == set()


# Trouble


@pytest.mark.parametrize("call", ["query", "execute"])
async def test_what_cannot_be_settled_now_is_settled_later(
    delisting: IndexRemoval, redis_client: RedisClient, real_redis: Redis, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    async def refused(*_: object) -> list[Reply]:
        raise StoreUnavailable("it is a test")

    await list_by_hand(real_redis, AN_ID)
    delisting.queue_seen_live([(LOOKUP, AN_ID)])
    with monkeypatch.context() as outage:
        outage.setattr(redis_client, call, refused)
        with pytest.raises(StoreUnavailable):
            await delisting.process_queue()

    await delisting.process_queue()

    assert await listed(real_redis) == set()


async def test_a_batch_that_fails_as_one_is_settled_one_by_one(redis_client: RedisClient, real_redis: Redis) -> None:
    async def fail() -> None:
        raise StoreUnavailable("it is a test")

    ids = [f"ab90c3cc-0d44-4b50-8888-{number:012x}" for number in range(200)]
    await list_by_hand(real_redis, *ids)
    watched = IndexRemoval(Interrupted(redis_client, "remove_from_index", before=fail), KEYS)
    watched.queue_seen_live((LOOKUP, session_id) for session_id in ids)

    await watched.process_queue()

    assert await listed(real_redis) == set()


async def test_what_is_suspected_while_others_are_settled_is_settled_next(
    redis_client: RedisClient, real_redis: Redis
) -> None:
    async def suspect_again() -> None:
        await list_by_hand(real_redis, AN_ID)
        watched.queue_seen_live([(LOOKUP, AN_ID)])

    watched = IndexRemoval(Interrupted(redis_client, "remove_from_index", after=suspect_again), KEYS)
    watched.queue_seen_live([(LOOKUP, AN_ID)])
    await watched.process_queue()

    await watched.process_queue()

    assert await listed(real_redis) == set()


@pytest.mark.parametrize("tampered", [KEYS.session(ANOTHER_ID), KEYS.tombstone(ANOTHER_ID), KEYS.agent(AGENT)])
async def test_a_tampered_key_holds_up_no_other(delisting: IndexRemoval, real_redis: Redis, tampered: str) -> None:
    await list_by_hand(real_redis, AN_ID)
    await real_redis.set(tampered, "not ours", px=MINUTE_MS)

    delisting.queue_seen_live([(KEYS.agent(AGENT), ANOTHER_ID), (LOOKUP, AN_ID)])
    await delisting.process_queue()

    assert await listed(real_redis) == set()


# In the service


async def test_a_session_deleted_while_its_lookups_were_out_of_reach_leaves_them_later(
    real_redis: Redis, aiohttp_client: AiohttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.app.REMOVAL_INTERVAL_SECONDS", 0.01)
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), real_redis))
    session_id = await open_session(client)
    monkeypatch.setattr(Pipeline, "execute", change_of_no_lookup)

    response = await client.delete(f"{SESSIONS}/{session_id}")

    assert response.status == 200
    async with asyncio.timeout(SOON):
        while await real_redis.exists(KEYS.user(USER), KEYS.agent(AGENT)):
            continue


async def test_what_a_listing_meets_that_is_long_gone_leaves_its_lookup(
    redis_client: RedisClient, delisting: IndexRemoval, session: Session, real_redis: Redis
) -> None:
    await list_by_hand(real_redis, AN_ID, ms_ago=REVOCATION_MARKER_MS + SOON * 1000)
    directory = SessionListing(redis_client, KEYS, SessionCounts(redis_client, KEYS), delisting.queue_missing)

    page = await directory.page(SessionFilter(user_id=USER), 10)
    await delisting.process_queue()

    assert [found.id for found in page.sessions] == [session.id]
    assert await listed(real_redis) == {session.id}
