"""Entries of owner indexes are removed if their sessions are certainly gone, and stay otherwise."""

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
OWNER_INDEX = KEYS.user(USER)
WAIT_SECONDS = 30


@pytest.fixture
def index_removal(redis_client: RedisClient) -> IndexRemoval:
    return IndexRemoval(redis_client, KEYS)


async def add_entries(redis: Redis, *session_ids: str, ms_ago: int = 0) -> None:
    seconds, _ = await redis.time()
    await redis.zadd(OWNER_INDEX, dict.fromkeys(session_ids, seconds * 1000 - ms_ago))
    await redis.pexpire(OWNER_INDEX, MINUTE_MS)


async def indexed_ids(redis: Redis) -> set[str]:
    entries: list[bytes] = await redis.zrange(OWNER_INDEX, 0, -1)  # type: ignore[assignment]
    return {session_id.decode() for session_id in entries}


def entries_of(session: Session) -> list[tuple[str, str]]:
    return [(OWNER_INDEX, session.id)]


async def reject_zrem(redis_client: Pipeline, *commands: Command) -> list[Reply]:
    if commands[0][0] == "ZREM":
        raise StoreUnavailable("the slot of the owner index has no node")
    return await redis_client.execute_ordered(*commands)


async def queue_and_process(index_removal: IndexRemoval, session_ids: Iterable[str]) -> None:
    index_removal.queue_missing(OWNER_INDEX, session_ids)
    await index_removal.process_queue()


# Entries of sessions that were seen live


async def test_the_recent_entry_of_a_deleted_session_is_removed(index_removal: IndexRemoval, real_redis: Redis) -> None:
    await add_entries(real_redis, AN_ID)

    index_removal.queue_seen_live([(OWNER_INDEX, AN_ID)])
    await index_removal.process_queue()

    assert await indexed_ids(real_redis) == set()


async def test_an_ended_session_is_removed_from_both_owner_indexes(
    index_removal: IndexRemoval, session: Session, real_redis: Redis
) -> None:
    await real_redis.delete(*KEYS.of(session.id))

    index_removal.queue_ended(session.id, AGENT, USER)
    await index_removal.process_queue()

    assert await contents(real_redis) == {}


async def test_the_entry_of_an_expired_session_is_removed(
    index_removal: IndexRemoval, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 31 * MINUTE_MS)

    index_removal.queue_seen_live(entries_of(session))
    await index_removal.process_queue()

    assert await indexed_ids(real_redis) == set()


async def test_the_entry_of_a_live_session_stays(
    index_removal: IndexRemoval, session: Session, real_redis: Redis
) -> None:
    index_removal.queue_seen_live(entries_of(session))
    await index_removal.process_queue()

    assert await indexed_ids(real_redis) == {session.id}


async def test_the_entry_of_a_lost_session_stays_until_its_expiry(
    index_removal: IndexRemoval, session: Session, real_redis: Redis
) -> None:
    await real_redis.delete(KEYS.session(session.id))

    index_removal.queue_seen_live(entries_of(session))
    await index_removal.process_queue()

    assert await indexed_ids(real_redis) == {session.id}


# Entries whose sessions a reader did not find


async def test_the_old_entry_of_a_missing_session_is_removed(index_removal: IndexRemoval, real_redis: Redis) -> None:
    await add_entries(real_redis, AN_ID, ms_ago=REVOCATION_MARKER_MS + 2000)

    await queue_and_process(index_removal, [AN_ID])

    assert await indexed_ids(real_redis) == set()


async def test_the_recent_entry_of_an_expired_session_is_removed(
    index_removal: IndexRemoval, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 31 * MINUTE_MS)

    await queue_and_process(index_removal, [session.id])

    assert await indexed_ids(real_redis) == set()


async def test_the_entry_of_a_session_that_may_be_in_creation_stays(
    index_removal: IndexRemoval, real_redis: Redis
) -> None:
    await add_entries(real_redis, AN_ID, ms_ago=REVOCATION_MARKER_MS - MINUTE_MS)

    await queue_and_process(index_removal, [AN_ID])

    assert await indexed_ids(real_redis) == {AN_ID}


async def test_an_entry_that_is_already_removed_is_not_an_error(index_removal: IndexRemoval, real_redis: Redis) -> None:
    await queue_and_process(index_removal, [AN_ID])

    assert await contents(real_redis) == {}


async def test_an_entry_that_is_not_queued_stays(index_removal: IndexRemoval, real_redis: Redis) -> None:
    await add_entries(real_redis, AN_ID, ANOTHER_ID, ms_ago=2 * REVOCATION_MARKER_MS)

    await queue_and_process(index_removal, [AN_ID])

    assert await indexed_ids(real_redis) == {ANOTHER_ID}


async def test_several_batches_are_processed_at_once(index_removal: IndexRemoval, real_redis: Redis) -> None:
    ids = [f"ab90c3cc-0d44-4b50-8888-{number:012x}" for number in range(250)]
    await add_entries(real_redis, *ids, ms_ago=2 * REVOCATION_MARKER_MS)

    await queue_and_process(index_removal, ids)

    assert await indexed_ids(real_redis) == set()


async def test_an_entry_is_processed_once(index_removal: IndexRemoval, real_redis: Redis) -> None:
    await queue_and_process(index_removal, [AN_ID])
    await add_entries(real_redis, AN_ID, ms_ago=2 * REVOCATION_MARKER_MS)

    await index_removal.process_queue()

    assert await indexed_ids(real_redis) == {AN_ID}


async def test_the_queue_of_missing_entries_is_bounded(
    index_removal: IndexRemoval, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.maintenance.index_repair.MAX_QUEUED_BY_READERS", 2)
    ids = [f"ab90c3cc-0d44-4b50-8888-{number:012x}" for number in range(5)]
    await add_entries(real_redis, *ids, ms_ago=2 * REVOCATION_MARKER_MS)

    await queue_and_process(index_removal, ids)

    assert len(await indexed_ids(real_redis)) == 3


async def test_missing_entries_leave_room_for_entries_seen_live(
    index_removal: IndexRemoval, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.maintenance.index_repair.MAX_QUEUED_BY_READERS", 1)
    await add_entries(real_redis, AN_ID)

    index_removal.queue_missing(OWNER_INDEX, [ANOTHER_ID])
    index_removal.queue_seen_live([(OWNER_INDEX, AN_ID)])
    await index_removal.process_queue()

    assert await indexed_ids(real_redis) == set()


# Failures


@pytest.mark.parametrize("call", ["query", "execute"])
async def test_an_entry_that_fails_is_processed_later(
    index_removal: IndexRemoval,
    redis_client: RedisClient,
    real_redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
) -> None:
    async def reject(*_: object) -> list[Reply]:
        raise StoreUnavailable("the test interrupts the command")

    await add_entries(real_redis, AN_ID)
    index_removal.queue_seen_live([(OWNER_INDEX, AN_ID)])
    with monkeypatch.context() as outage:
        outage.setattr(redis_client, call, reject)
        with pytest.raises(StoreUnavailable):
            await index_removal.process_queue()

    await index_removal.process_queue()

    assert await indexed_ids(real_redis) == set()


async def test_the_entries_of_a_failed_batch_are_processed_one_by_one(
    redis_client: RedisClient, real_redis: Redis
) -> None:
    async def fail() -> None:
        raise StoreUnavailable("the test interrupts the command")

    ids = [f"ab90c3cc-0d44-4b50-8888-{number:012x}" for number in range(200)]
    await add_entries(real_redis, *ids)
    removal = IndexRemoval(Interrupted(redis_client, "remove_from_index", before=fail), KEYS)
    removal.queue_seen_live((OWNER_INDEX, session_id) for session_id in ids)

    await removal.process_queue()

    assert await indexed_ids(real_redis) == set()


async def test_an_entry_queued_during_processing_is_processed_next(
    redis_client: RedisClient, real_redis: Redis
) -> None:
    async def queue_again() -> None:
        await add_entries(real_redis, AN_ID)
        removal.queue_seen_live([(OWNER_INDEX, AN_ID)])

    removal = IndexRemoval(Interrupted(redis_client, "remove_from_index", after=queue_again), KEYS)
    removal.queue_seen_live([(OWNER_INDEX, AN_ID)])
    await removal.process_queue()

    await removal.process_queue()

    assert await indexed_ids(real_redis) == set()


@pytest.mark.parametrize("corrupted_key", [KEYS.session(ANOTHER_ID), KEYS.tombstone(ANOTHER_ID), KEYS.agent(AGENT)])
async def test_a_key_of_the_wrong_type_does_not_block_other_entries(
    index_removal: IndexRemoval, real_redis: Redis, corrupted_key: str
) -> None:
    await add_entries(real_redis, AN_ID)
    await real_redis.set(corrupted_key, "not a hash", px=MINUTE_MS)

    index_removal.queue_seen_live([(KEYS.agent(AGENT), ANOTHER_ID), (OWNER_INDEX, AN_ID)])
    await index_removal.process_queue()

    assert await indexed_ids(real_redis) == set()


# In the service


async def test_a_session_deleted_while_its_owner_indexes_are_unavailable_is_removed_later(
    real_redis: Redis, aiohttp_client: AiohttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.app.REMOVAL_INTERVAL_SECONDS", 0.01)
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(), real_redis))
    session_id = await open_session(client)
    monkeypatch.setattr(Pipeline, "execute", reject_zrem)

    response = await client.delete(f"{SESSIONS}/{session_id}")

    assert response.status == 200
    async with asyncio.timeout(WAIT_SECONDS):
        while await real_redis.exists(KEYS.user(USER), KEYS.agent(AGENT)):
            continue


async def test_a_missing_session_that_a_listing_found_is_removed(
    redis_client: RedisClient, index_removal: IndexRemoval, session: Session, real_redis: Redis
) -> None:
    await add_entries(real_redis, AN_ID, ms_ago=REVOCATION_MARKER_MS + WAIT_SECONDS * 1000)
    listing = SessionListing(redis_client, KEYS, SessionCounts(redis_client, KEYS), index_removal.queue_missing)

    page = await listing.page(SessionFilter(user_id=USER), 10)
    await index_removal.process_queue()

    assert [found.id for found in page.sessions] == [session.id]
    assert await indexed_ids(real_redis) == {session.id}
