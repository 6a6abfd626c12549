"""Listing sessions: what is shown, in which order, how many there are, and that a walk loses and repeats nothing."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable

import pytest
from redis.asyncio import Redis

from service.maintenance.sweeper import Sweeper
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.sessions import listing as rooms
from service.sessions.counts import CountsByShard, SessionCounts, ShardCount
from service.sessions.keys import SHARDS, Keys
from service.sessions.listing import START, Page, Position, SessionFilter, SessionListing
from service.sessions.session import Session, new_session_id
from service.sessions.store import SessionStore
from tests.aging import age
from tests.conftest import AGENT, USER, create_session, events_into, lane_to
from tests.sessions.evidence import KEYS, commands_seen, contents

MINUTE_MS = 60_000
ANYONE = SessionFilter()
OTHER_AGENT = "00000000-0000-4000-8000-00000000000a"
OTHER_USER = "00000000-0000-4000-8000-00000000000b"


@pytest.fixture
def directory(redis_client: RedisClient) -> SessionListing:
    return SessionListing(redis_client, Keys(""), SessionCounts(redis_client, Keys("")))


async def create(store: SessionStore, number: int, agent_id: str = AGENT, user_id: str = USER) -> list[Session]:
    return [await create_session(store, agent_id=agent_id, user_id=user_id) for _ in range(number)]


async def walk(directory: SessionListing, wanted: SessionFilter = ANYONE, limit: int = 3) -> list[Page]:
    """Every page, from the first to the last."""
    pages = [await directory.page(wanted, limit)]
    while (after := pages[-1].next) is not None:
        pages.append(await directory.page(wanted, limit, after))
    return pages


def shown(pages: Iterable[Page]) -> list[str]:
    return [session.id for page in pages for session in page.sessions]


def ids(sessions: Iterable[Session]) -> list[str]:
    return [session.id for session in sessions]


def in_order(sessions: Iterable[Session]) -> list[Session]:
    """In the order of a walk through all shards."""
    return sorted(sessions, key=lambda session: (session.id[:2], session.created_at_ms, session.id))


def in_one_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.sessions.creation.new_session_id", lambda *_: "ab" + new_session_id()[2:])


async def created_at_once(redis: Redis, sessions: Iterable[Session], instant_ms: int) -> None:
    """Let them stand in their shard's index and their lookups as if one millisecond had seen them all created."""
    for session in sessions:
        for index in (KEYS.created(session.id[:2]), KEYS.user(session.user_id), KEYS.agent(session.agent_id)):
            await redis.zadd(index, {session.id: instant_ms})


# What is shown


async def test_nothing_is_listed_where_there_is_nothing(directory: SessionListing) -> None:
    assert await directory.page(ANYONE, 100) == Page(ANYONE, [], 0, ShardCount(0, 0), None)


async def test_a_session_is_listed_whole(directory: SessionListing, store: SessionStore, session: Session) -> None:
    (listed,) = (await directory.page(ANYONE, 100)).sessions

    assert listed.stored == (await store.get(session.id)).stored
    assert listed.time_remaining_ms <= session.time_remaining_ms


async def test_all_are_listed_shard_by_shard_the_oldest_first(directory: SessionListing, store: SessionStore) -> None:
    sessions = await create(store, 20)

    assert shown([await directory.page(ANYONE, 100)]) == ids(in_order(sessions))


async def test_pages_follow_one_another_without_gap_and_overlap(directory: SessionListing, store: SessionStore) -> None:
    sessions = await create(store, 20)

    pages = await walk(directory)

    assert [len(page.sessions) for page in pages] == [3, 3, 3, 3, 3, 3, 2]
    assert shown(pages) == ids(in_order(sessions))


async def test_a_last_page_that_is_full_has_no_next(directory: SessionListing, store: SessionStore) -> None:
    await create(store, 3)

    assert (await directory.page(ANYONE, 3)).next is None


async def test_of_a_user_only_its_sessions_are_listed_in_the_order_of_its_lookup(
    directory: SessionListing, store: SessionStore, real_redis: Redis
) -> None:
    sessions = await create(store, 7)
    await create(store, 3, user_id=OTHER_USER)

    listed = shown(await walk(directory, SessionFilter(user_id=USER)))

    owner_index = await real_redis.zrange(KEYS.user(USER), 0, -1)
    assert [session_id.encode() for session_id in listed] == owner_index
    assert sorted(listed) == sorted(ids(sessions))


async def test_of_an_agent_only_its_sessions_are_listed(directory: SessionListing, store: SessionStore) -> None:
    sessions = await create(store, 7)
    await create(store, 3, agent_id=OTHER_AGENT)

    assert sorted(shown(await walk(directory, SessionFilter(agent_id=AGENT)))) == sorted(ids(sessions))


async def test_of_a_user_and_an_agent_those_of_both_are_listed(directory: SessionListing, store: SessionStore) -> None:
    sessions = await create(store, 4)
    await create(store, 4, agent_id=OTHER_AGENT)
    await create(store, 4, user_id=OTHER_USER)

    assert sorted(shown(await walk(directory, SessionFilter(AGENT, USER)))) == sorted(ids(sessions))


async def test_a_lookup_is_no_proof_of_whose_a_session_is(
    directory: SessionListing, store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await create(store, 1, OTHER_AGENT, OTHER_USER)
    await real_redis.zadd(KEYS.user(OTHER_USER), {session.id: 1})
    await real_redis.zadd(KEYS.agent(OTHER_AGENT), {session.id: 1})

    assert session.id not in shown(await walk(directory, SessionFilter(user_id=OTHER_USER)))
    assert session.id not in shown(await walk(directory, SessionFilter(agent_id=OTHER_AGENT)))


@pytest.mark.parametrize(
    "wanted", [ANYONE, SessionFilter(user_id=USER), SessionFilter(agent_id=AGENT), SessionFilter(near_expiration=True)]
)
async def test_none_that_has_ended_is_listed(
    directory: SessionListing, session: Session, real_redis: Redis, wanted: SessionFilter
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)

    assert shown(await walk(directory, wanted)) == []


async def test_none_that_was_kept_past_its_end_is_listed(
    directory: SessionListing, session: Session, real_redis: Redis
) -> None:
    await real_redis.persist(KEYS.session(session.id))
    await real_redis.hset(KEYS.session(session.id), "expiresAt", session.created_at_ms)

    assert shown(await walk(directory)) == []
    await real_redis.delete(KEYS.session(session.id))


async def test_one_renewed_while_it_was_read_is_listed(
    directory: SessionListing,
    store: SessionStore,
    session: Session,
    redis_client: RedisClient,
    real_redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first_read = directory._read

    async def read_too_early(session_ids: list[str]) -> list[Session]:
        monkeypatch.setattr(directory, "_read", first_read)
        return [found._replace(read_at_ms=found.expires_at_ms) for found in await first_read(session_ids)]

    monkeypatch.setattr(directory, "_read", read_too_early)

    assert shown([await directory.page(ANYONE, 100)]) == [session.id]


async def test_one_that_lost_a_field_holds_up_no_other(
    directory: SessionListing, store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await real_redis.hdel(KEYS.session(session.id), "metadata")
    (other,) = await create(store, 1)

    assert shown(await walk(directory)) == [other.id]


# Near expiration


@pytest.fixture
async def near_and_far(store: SessionStore, real_redis: Redis) -> tuple[list[Session], list[Session]]:
    near, far = await create(store, 5), await create(store, 8)
    for session in near:
        await age(real_redis, session.id, 26 * MINUTE_MS)
    return near, far


@pytest.mark.parametrize(
    "whose", [ANYONE, SessionFilter(user_id=USER), SessionFilter(agent_id=AGENT), SessionFilter(AGENT, USER)]
)
async def test_those_near_their_expiration_can_be_listed_alone(
    directory: SessionListing, near_and_far: tuple[list[Session], list[Session]], whose: SessionFilter
) -> None:
    near, far = near_and_far

    listed_near = shown(await walk(directory, whose._replace(near_expiration=True)))
    listed_far = shown(await walk(directory, whose._replace(near_expiration=False)))

    assert sorted(listed_near) == sorted(ids(near))
    assert sorted(listed_far) == sorted(ids(far))


async def test_a_page_of_those_near_reads_only_them(
    directory: SessionListing, store: SessionStore, near_and_far: tuple[list[Session], list[Session]], real_redis: Redis
) -> None:
    before = (await commands_seen(real_redis)).get("hmget", 0)

    await directory.page(SessionFilter(near_expiration=True), 100)

    assert (await commands_seen(real_redis))["hmget"] - before == 5


async def test_the_index_of_warnings_is_no_proof(
    directory: SessionListing, session: Session, real_redis: Redis
) -> None:
    await real_redis.zadd(KEYS.warning(session.id[:2]), {session.id: 1})

    assert shown(await walk(directory, SessionFilter(near_expiration=True))) == []


async def test_a_warning_has_begun_by_the_clock_of_its_own_shard(
    directory: SessionListing, store: SessionStore, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a cluster clocks differ: here that of one shard is behind, and those of the others are not asked."""
    coming = iter([f"{shard}{new_session_id()[2:]}" for shard in ("aa", "ab")])
    monkeypatch.setattr("service.sessions.creation.new_session_id", lambda *_: next(coming))
    near, behind = await create(store, 2)
    await asyncio.gather(*(age(real_redis, session.id, 26 * MINUTE_MS) for session in (near, behind)))
    take = SessionCounts.count_with_near_expiration

    async def with_a_slow_server(session_counts: SessionCounts) -> tuple[CountsByShard, int]:
        counted, near = await take(session_counts)
        return counted._replace(at_ms={**counted.at_ms, behind.id[:2]: behind.created_at_ms - 5 * MINUTE_MS}), near

    monkeypatch.setattr(SessionCounts, "count_with_near_expiration", with_a_slow_server)

    assert shown(await walk(directory, SessionFilter(near_expiration=True))) == [near.id]


async def test_a_page_looks_at_a_bounded_number_of_entries(
    directory: SessionListing, store: SessionStore, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "MAX_EXAMINED", 4)
    sessions = await create(store, 10)
    await asyncio.gather(*(age(real_redis, session.id, 30 * MINUTE_MS) for session in in_order(sessions)[:9]))

    pages = await walk(directory, limit=100)

    assert [len(page.sessions) for page in pages] == [0, 0, 1]
    assert shown(pages) == ids(in_order(sessions))[9:]


# How many there are


async def test_all_that_live_are_counted(directory: SessionListing, store: SessionStore, real_redis: Redis) -> None:
    sessions = await create(store, 9)
    await age(real_redis, sessions[0].id, 31 * MINUTE_MS)
    await age(real_redis, sessions[1].id, 26 * MINUTE_MS)

    page = await directory.page(ANYONE, 2)

    assert page.stats == ShardCount(8, 1)
    assert page.stats.total == 9
    assert page.total == 8


@pytest.mark.parametrize(("near_expiration", "total"), [(True, 5), (False, 8)])
@pytest.mark.parametrize("whose", [ANYONE, SessionFilter(user_id=USER), SessionFilter(AGENT, USER)])
@pytest.mark.usefixtures("near_and_far")
async def test_those_near_and_not_near_their_expiration_are_counted(
    directory: SessionListing, whose: SessionFilter, near_expiration: bool, total: int
) -> None:
    page = await directory.page(whose._replace(near_expiration=near_expiration), 1)

    assert page.total == total


@pytest.mark.parametrize(
    ("wanted", "total"),
    [
        (SessionFilter(user_id=USER), 5),
        (SessionFilter(agent_id=AGENT), 6),
        (SessionFilter(AGENT, USER), 5),
        (SessionFilter(OTHER_AGENT, OTHER_USER), 1),
    ],
)
async def test_the_total_of_a_filter_is_what_its_lookups_hold_at_most(
    directory: SessionListing, store: SessionStore, wanted: SessionFilter, total: int
) -> None:
    await create(store, 4)
    await create(store, 1, agent_id=OTHER_AGENT)
    await create(store, 2, user_id=OTHER_USER)

    assert (await directory.page(wanted, 1)).total == total


async def test_counts_are_fresh_on_every_page(directory: SessionListing, store: SessionStore) -> None:
    sessions = await create(store, 4)
    first = await directory.page(ANYONE, 2)
    await store.delete(sessions[0].id)

    second = await directory.page(ANYONE, 2, first.next or START)

    assert (first.total, second.total) == (4, 3)


async def test_a_page_asks_for_nothing_that_grows_with_the_sessions(
    directory: SessionListing, store: SessionStore, real_redis: Redis
) -> None:
    await create(store, 30)
    before = await commands_seen(real_redis)

    await walk(directory)

    seen = (await commands_seen(real_redis) - before).keys()
    assert seen == {"time", "zcard", "zcount", "zrange", "hmget", "evalsha"}


async def test_listing_writes_nothing(directory: SessionListing, store: SessionStore, real_redis: Redis) -> None:
    await create(store, 10)
    before = await contents(real_redis)

    await walk(directory)

    assert await contents(real_redis) == before


# Equal instants


@pytest.mark.parametrize("limit", [1, 7, 40, 100])
@pytest.mark.parametrize("wanted", [ANYONE, SessionFilter(user_id=USER), SessionFilter(agent_id=AGENT)])
async def test_sessions_of_one_instant_follow_by_their_ids(
    directory: SessionListing,
    store: SessionStore,
    real_redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    wanted: SessionFilter,
    limit: int,
) -> None:
    in_one_shard(monkeypatch)
    before, sessions, after = await create(store, 1), await create(store, 40), await create(store, 1)
    await created_at_once(real_redis, before, 1_000_000)
    await created_at_once(real_redis, sessions, 2_000_000)
    await created_at_once(real_redis, after, 3_000_000)

    pages = await walk(directory, wanted, limit)

    assert shown(pages) == [*ids(before), *sorted(ids(sessions)), *ids(after)]


async def test_a_walk_goes_on_from_one_that_has_left(
    directory: SessionListing, store: SessionStore, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_one_shard(monkeypatch)
    sessions = await create(store, 10)
    await created_at_once(real_redis, sessions, 2_000_000)
    first = await directory.page(ANYONE, 5)
    await asyncio.gather(*(store.delete(session.id) for session in first.sessions))

    second = await directory.page(ANYONE, 5, first.next or START)

    assert shown([first, second]) == sorted(ids(sessions))


async def test_ids_follow_by_their_bytes_whatever_the_servers_language(
    directory: SessionListing, store: SessionStore, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Danish `aa` comes after `z`; here it comes before `ab`, and after `a9`."""
    ids_of_one_instant = [f"abaa{end}-0d44-4b50-8888-8dd25736052a" for end in ("99ff", "9aff", "a9ff", "aaff", "abff")]
    coming = iter(ids_of_one_instant)
    monkeypatch.setattr("service.sessions.creation.new_session_id", lambda *_: next(coming))
    await created_at_once(real_redis, await create(store, 5), 2_000_000)

    assert shown(await walk(directory, limit=1)) == ids_of_one_instant


# A walk while everything changes


class Turmoil:
    """Sessions that come, go, are renewed, changed and end; which of them, a seed decides."""

    def __init__(self, store: SessionStore, redis: Redis, seed: int) -> None:
        self._store = store
        self._redis = redis
        self._random = random.Random(seed)
        self.alive: list[str] = []
        self.ended: set[str] = set()

    async def create(self, number: int) -> None:
        self.alive += ids(await create(self._store, number))

    async def stir(self) -> None:
        await self.create(self._random.randrange(8))
        await self._end_some()
        for session_id in self._random.sample(self.alive, len(self.alive) // 4):
            await self._store.renew(session_id)
        for session_id in self._random.sample(self.alive, len(self.alive) // 4):
            await self._store.update_timeout(session_id, {"warning_threshold_minutes": self._random.randrange(1, 60)})
        metrics = Metrics()
        beside = lane_to(self._redis)
        await Sweeper(beside, Keys(""), events_into(metrics), metrics, retention_ms=MINUTE_MS).sweep()

    async def _end_some(self) -> None:
        for session_id in self._random.sample(self.alive, min(len(self.alive), self._random.randrange(6))):
            self.alive.remove(session_id)
            self.ended.add(session_id)
            end = self._random.choice([self._store.delete, self._pass_away])
            await end(session_id)

    async def _pass_away(self, session_id: str) -> None:
        await age(self._redis, session_id, 31 * MINUTE_MS)


async def walk_in(turmoil: Turmoil, directory: SessionListing, wanted: SessionFilter) -> tuple[list[str], set[str]]:
    """What was shown, in its order; and what of it had ended before it was."""
    seen, ended_before = list[str](), set[str]()
    after: Position | None = START
    while after is not None:
        await turmoil.stir()
        page = await directory.page(wanted, 5, after)
        seen += ids(page.sessions)
        ended_before |= turmoil.ended & set(ids(page.sessions))
        after = page.next
    return seen, ended_before


@pytest.mark.parametrize("wanted", [ANYONE, SessionFilter(user_id=USER), SessionFilter(AGENT, USER)])
@pytest.mark.parametrize("seed", range(4))
async def test_a_walk_shows_once_what_lives_throughout_and_nothing_that_has_ended(
    directory: SessionListing,
    store: SessionStore,
    real_redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    wanted: SessionFilter,
) -> None:
    shards = random.Random(seed).sample(SHARDS, 3)
    monkeypatch.setattr(
        "service.sessions.creation.new_session_id", lambda *_: random.choice(shards) + new_session_id()[2:]
    )
    turmoil = Turmoil(store, real_redis, seed)
    await turmoil.create(60)
    there_at_first = set(turmoil.alive)

    seen, ended_before = await walk_in(turmoil, directory, wanted)

    assert there_at_first & set(turmoil.alive) <= set(seen)
    assert max(Counter(seen).values()) == 1
    assert ended_before == set()
