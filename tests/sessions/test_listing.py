"""Listing sessions: filters, order, totals and pages."""

import asyncio
from collections.abc import Iterable

import pytest
from redis.asyncio import Redis

from service.redis_client.client import RedisClient
from service.sessions import listing as listing_module
from service.sessions.counts import CountsByShard, SessionCounts, ShardCount
from service.sessions.keys import Keys
from service.sessions.listing import START, Page, SessionFilter, SessionListing
from service.sessions.session import Session, new_session_id
from service.sessions.store import SessionStore
from tests.aging import age
from tests.conftest import AGENT, USER, create_session
from tests.redis_contents import KEYS, command_counts, contents

MINUTE_MS = 60_000
ALL = SessionFilter()
OTHER_AGENT = "00000000-0000-4000-8000-00000000000a"
OTHER_USER = "00000000-0000-4000-8000-00000000000b"


@pytest.fixture
def listing(redis_client: RedisClient) -> SessionListing:
    return SessionListing(redis_client, Keys(""), SessionCounts(redis_client, Keys("")))


async def create(store: SessionStore, number: int, agent_id: str = AGENT, user_id: str = USER) -> list[Session]:
    return [await create_session(store, agent_id=agent_id, user_id=user_id) for _ in range(number)]


async def all_pages(listing: SessionListing, filter_: SessionFilter = ALL, limit: int = 3) -> list[Page]:
    """Every page, from the first to the last."""
    pages = [await listing.page(filter_, limit)]
    while (after := pages[-1].next) is not None:
        pages.append(await listing.page(filter_, limit, after))
    return pages


def listed_ids(pages: Iterable[Page]) -> list[str]:
    return [session.id for page in pages for session in page.sessions]


def ids(sessions: Iterable[Session]) -> list[str]:
    return [session.id for session in sessions]


def in_order(sessions: Iterable[Session]) -> list[Session]:
    """In the order of a listing of all shards."""
    return sorted(sessions, key=lambda session: (session.id[:2], session.created_at_ms, session.id))


def in_one_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.sessions.creation.new_session_id", lambda *_: "ab" + new_session_id()[2:])


async def set_created_at(redis: Redis, sessions: Iterable[Session], created_at_ms: int) -> None:
    """Set the same creation time for sessions in their indexes."""
    for session in sessions:
        for index in (KEYS.created(session.id[:2]), KEYS.user(session.user_id), KEYS.agent(session.agent_id)):
            await redis.zadd(index, {session.id: created_at_ms})


# Sessions on a page


async def test_an_empty_store_has_an_empty_page(listing: SessionListing) -> None:
    assert await listing.page(ALL, 100) == Page(ALL, [], 0, ShardCount(0, 0), None)


async def test_a_session_is_listed_with_all_fields(
    listing: SessionListing, store: SessionStore, session: Session
) -> None:
    (listed,) = (await listing.page(ALL, 100)).sessions

    assert listed.stored == (await store.get(session.id)).stored
    assert listed.time_remaining_ms <= session.time_remaining_ms


async def test_sessions_are_listed_by_shard_and_creation_time(listing: SessionListing, store: SessionStore) -> None:
    sessions = await create(store, 20)

    assert listed_ids([await listing.page(ALL, 100)]) == ids(in_order(sessions))


async def test_pages_have_no_gaps_and_do_not_overlap(listing: SessionListing, store: SessionStore) -> None:
    sessions = await create(store, 20)

    pages = await all_pages(listing)

    assert [len(page.sessions) for page in pages] == [3, 3, 3, 3, 3, 3, 2]
    assert listed_ids(pages) == ids(in_order(sessions))


async def test_a_full_last_page_has_no_next_page(listing: SessionListing, store: SessionStore) -> None:
    await create(store, 3)

    assert (await listing.page(ALL, 3)).next is None


async def test_the_sessions_of_a_user_are_listed_in_the_order_of_the_owner_index(
    listing: SessionListing, store: SessionStore, real_redis: Redis
) -> None:
    sessions = await create(store, 7)
    await create(store, 3, user_id=OTHER_USER)

    listed = listed_ids(await all_pages(listing, SessionFilter(user_id=USER)))

    owner_index = await real_redis.zrange(KEYS.user(USER), 0, -1)
    assert [session_id.encode() for session_id in listed] == owner_index
    assert sorted(listed) == sorted(ids(sessions))


async def test_the_sessions_of_an_agent_are_listed(listing: SessionListing, store: SessionStore) -> None:
    sessions = await create(store, 7)
    await create(store, 3, agent_id=OTHER_AGENT)

    assert sorted(listed_ids(await all_pages(listing, SessionFilter(agent_id=AGENT)))) == sorted(ids(sessions))


async def test_the_sessions_of_a_user_with_an_agent_are_listed(listing: SessionListing, store: SessionStore) -> None:
    sessions = await create(store, 4)
    await create(store, 4, agent_id=OTHER_AGENT)
    await create(store, 4, user_id=OTHER_USER)

    assert sorted(listed_ids(await all_pages(listing, SessionFilter(AGENT, USER)))) == sorted(ids(sessions))


async def test_a_session_of_another_owner_in_the_index_is_not_listed(
    listing: SessionListing, store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await create(store, 1, OTHER_AGENT, OTHER_USER)
    await real_redis.zadd(KEYS.user(OTHER_USER), {session.id: 1})
    await real_redis.zadd(KEYS.agent(OTHER_AGENT), {session.id: 1})

    assert session.id not in listed_ids(await all_pages(listing, SessionFilter(user_id=OTHER_USER)))
    assert session.id not in listed_ids(await all_pages(listing, SessionFilter(agent_id=OTHER_AGENT)))


@pytest.mark.parametrize(
    "filter_", [ALL, SessionFilter(user_id=USER), SessionFilter(agent_id=AGENT), SessionFilter(near_expiration=True)]
)
async def test_an_expired_session_is_not_listed(
    listing: SessionListing, session: Session, real_redis: Redis, filter_: SessionFilter
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)

    assert listed_ids(await all_pages(listing, filter_)) == []


async def test_a_persisted_expired_session_is_not_listed(
    listing: SessionListing, session: Session, real_redis: Redis
) -> None:
    await real_redis.persist(KEYS.session(session.id))
    await real_redis.hset(KEYS.session(session.id), "expiresAt", session.created_at_ms)

    assert listed_ids(await all_pages(listing)) == []
    await real_redis.delete(KEYS.session(session.id))


async def test_a_session_that_is_renewed_during_the_read_is_listed(
    listing: SessionListing,
    store: SessionStore,
    session: Session,
    redis_client: RedisClient,
    real_redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = listing._read

    async def read_with_late_clock(session_ids: list[str]) -> list[Session]:
        monkeypatch.setattr(listing, "_read", read)
        return [found._replace(read_at_ms=found.expires_at_ms) for found in await read(session_ids)]

    monkeypatch.setattr(listing, "_read", read_with_late_clock)

    assert listed_ids([await listing.page(ALL, 100)]) == [session.id]


async def test_a_session_without_a_field_does_not_hide_others(
    listing: SessionListing, store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await real_redis.hdel(KEYS.session(session.id), "metadata")
    (other,) = await create(store, 1)

    assert listed_ids(await all_pages(listing)) == [other.id]


# Near expiration


@pytest.fixture
async def near_and_far(store: SessionStore, real_redis: Redis) -> tuple[list[Session], list[Session]]:
    near, far = await create(store, 5), await create(store, 8)
    for session in near:
        await age(real_redis, session.id, 26 * MINUTE_MS)
    return near, far


@pytest.mark.parametrize(
    "filter_", [ALL, SessionFilter(user_id=USER), SessionFilter(agent_id=AGENT), SessionFilter(AGENT, USER)]
)
async def test_sessions_near_expiration_can_be_listed_separately(
    listing: SessionListing, near_and_far: tuple[list[Session], list[Session]], filter_: SessionFilter
) -> None:
    near, far = near_and_far

    listed_near = listed_ids(await all_pages(listing, filter_._replace(near_expiration=True)))
    listed_far = listed_ids(await all_pages(listing, filter_._replace(near_expiration=False)))

    assert sorted(listed_near) == sorted(ids(near))
    assert sorted(listed_far) == sorted(ids(far))


async def test_a_page_of_sessions_near_expiration_reads_only_those(
    listing: SessionListing, store: SessionStore, near_and_far: tuple[list[Session], list[Session]], real_redis: Redis
) -> None:
    before = (await command_counts(real_redis)).get("hmget", 0)

    await listing.page(SessionFilter(near_expiration=True), 100)

    assert (await command_counts(real_redis))["hmget"] - before == 5


async def test_a_wrong_score_in_the_warning_index_does_not_list_a_session(
    listing: SessionListing, session: Session, real_redis: Redis
) -> None:
    await real_redis.zadd(KEYS.warning(session.id[:2]), {session.id: 1})

    assert listed_ids(await all_pages(listing, SessionFilter(near_expiration=True))) == []


async def test_warnings_are_compared_with_the_clock_of_their_own_shard(
    listing: SessionListing, store: SessionStore, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clocks differ between the nodes of a cluster. Here the clock of one shard is slow."""
    new_ids = iter([f"{shard}{new_session_id()[2:]}" for shard in ("aa", "ab")])
    monkeypatch.setattr("service.sessions.creation.new_session_id", lambda *_: next(new_ids))
    near, behind = await create(store, 2)
    await asyncio.gather(*(age(real_redis, session.id, 26 * MINUTE_MS) for session in (near, behind)))
    count = SessionCounts.count_with_near_expiration

    async def count_with_a_slow_node(session_counts: SessionCounts) -> tuple[CountsByShard, int]:
        counts, near = await count(session_counts)
        return counts._replace(at_ms={**counts.at_ms, behind.id[:2]: behind.created_at_ms - 5 * MINUTE_MS}), near

    monkeypatch.setattr(SessionCounts, "count_with_near_expiration", count_with_a_slow_node)

    assert listed_ids(await all_pages(listing, SessionFilter(near_expiration=True))) == [near.id]


async def test_a_page_examines_a_limited_number_of_entries(
    listing: SessionListing, store: SessionStore, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_module, "MAX_EXAMINED", 4)
    sessions = await create(store, 10)
    await asyncio.gather(*(age(real_redis, session.id, 30 * MINUTE_MS) for session in in_order(sessions)[:9]))

    pages = await all_pages(listing, limit=100)

    assert [len(page.sessions) for page in pages] == [0, 0, 1]
    assert listed_ids(pages) == ids(in_order(sessions))[9:]


# Totals


async def test_live_sessions_are_counted(listing: SessionListing, store: SessionStore, real_redis: Redis) -> None:
    sessions = await create(store, 9)
    await age(real_redis, sessions[0].id, 31 * MINUTE_MS)
    await age(real_redis, sessions[1].id, 26 * MINUTE_MS)

    page = await listing.page(ALL, 2)

    assert page.stats == ShardCount(8, 1)
    assert page.stats.total == 9
    assert page.total == 8


@pytest.mark.parametrize(("near_expiration", "total"), [(True, 5), (False, 8)])
@pytest.mark.parametrize("filter_", [ALL, SessionFilter(user_id=USER), SessionFilter(AGENT, USER)])
@pytest.mark.usefixtures("near_and_far")
async def test_the_total_counts_sessions_near_expiration_or_not(
    listing: SessionListing, filter_: SessionFilter, near_expiration: bool, total: int
) -> None:
    page = await listing.page(filter_._replace(near_expiration=near_expiration), 1)

    assert page.total == total


@pytest.mark.parametrize(
    ("filter_", "total"),
    [
        (SessionFilter(user_id=USER), 5),
        (SessionFilter(agent_id=AGENT), 6),
        (SessionFilter(AGENT, USER), 5),
        (SessionFilter(OTHER_AGENT, OTHER_USER), 1),
    ],
)
async def test_the_total_of_a_filter_is_at_most_the_size_of_its_owner_indexes(
    listing: SessionListing, store: SessionStore, filter_: SessionFilter, total: int
) -> None:
    await create(store, 4)
    await create(store, 1, agent_id=OTHER_AGENT)
    await create(store, 2, user_id=OTHER_USER)

    assert (await listing.page(filter_, 1)).total == total


async def test_every_page_has_current_totals(listing: SessionListing, store: SessionStore) -> None:
    sessions = await create(store, 4)
    first = await listing.page(ALL, 2)
    await store.delete(sessions[0].id)

    second = await listing.page(ALL, 2, first.next or START)

    assert (first.total, second.total) == (4, 3)


async def test_the_kinds_of_commands_do_not_grow_with_the_sessions(
    listing: SessionListing, store: SessionStore, real_redis: Redis
) -> None:
    await create(store, 30)
    before = await command_counts(real_redis)

    await all_pages(listing)

    seen = (await command_counts(real_redis) - before).keys()
    assert seen == {"time", "zcard", "zcount", "zrange", "hmget", "evalsha"}


async def test_listing_writes_nothing(listing: SessionListing, store: SessionStore, real_redis: Redis) -> None:
    await create(store, 10)
    before = await contents(real_redis)

    await all_pages(listing)

    assert await contents(real_redis) == before


# Equal creation times


@pytest.mark.parametrize("limit", [1, 7, 40, 100])
@pytest.mark.parametrize("filter_", [ALL, SessionFilter(user_id=USER), SessionFilter(agent_id=AGENT)])
async def test_sessions_with_equal_creation_times_are_ordered_by_id(
    listing: SessionListing,
    store: SessionStore,
    real_redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    filter_: SessionFilter,
    limit: int,
) -> None:
    in_one_shard(monkeypatch)
    before, sessions, after = await create(store, 1), await create(store, 40), await create(store, 1)
    await set_created_at(real_redis, before, 1_000_000)
    await set_created_at(real_redis, sessions, 2_000_000)
    await set_created_at(real_redis, after, 3_000_000)

    pages = await all_pages(listing, filter_, limit)

    assert listed_ids(pages) == [*ids(before), *sorted(ids(sessions)), *ids(after)]


async def test_a_listing_continues_behind_a_deleted_session(
    listing: SessionListing, store: SessionStore, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_one_shard(monkeypatch)
    sessions = await create(store, 10)
    await set_created_at(real_redis, sessions, 2_000_000)
    first = await listing.page(ALL, 5)
    await asyncio.gather(*(store.delete(session.id) for session in first.sessions))

    second = await listing.page(ALL, 5, first.next or START)

    assert listed_ids([first, second]) == sorted(ids(sessions))


async def test_ids_are_ordered_by_bytes_whatever_the_locale_of_the_server(
    listing: SessionListing, store: SessionStore, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Danish, `aa` comes after `z`. In bytes it comes before `ab` and after `a9`."""
    ordered_ids = [f"abaa{end}-0d44-4b50-8888-8dd25736052a" for end in ("99ff", "9aff", "a9ff", "aaff", "abff")]
    new_ids = iter(ordered_ids)
    monkeypatch.setattr("service.sessions.creation.new_session_id", lambda *_: next(new_ids))
    await set_created_at(real_redis, await create(store, 5), 2_000_000)

    assert listed_ids(await all_pages(listing, limit=1)) == ordered_ids
