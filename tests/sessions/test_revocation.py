"""Ending all sessions of a user or an agent: what ends, what is left alone, and that no creation slips through."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from service.errors import SessionRevoked, StoreUnavailable
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient, Reply
from service.redis_client.scripts import Command
from service.sessions import cursors
from service.sessions import revocation as room
from service.sessions.index_scan import Entry, read_last
from service.sessions.keys import REVOCATION_MARKER_MS, Keys
from service.sessions.listing import Position, SessionFilter
from service.sessions.revocation import BulkRevocation, OwnerFilter, Remainder, Revoked
from service.sessions.scripts import ADD_TO_INDEX, CREATE
from service.sessions.session import Session, new_session_id
from service.sessions.store import SessionStore
from service.settings import Settings
from service.timestamps import ms_from_time_reply
from tests.aging import age
from tests.attempt import attempt
from tests.bad_input.helpers import invalid_fields
from tests.conftest import AGENT, USER, HttpClient, create_session, events_into, store_on
from tests.counted import counted
from tests.interruption import Interrupted
from tests.sessions.evidence import KEYS, commands_seen, configured, contents, forget_commands, keys_in, scores_of
from tests.sessions.test_listing_over_http import folded
from tests.test_walkthrough import MINUTE_MS, SESSIONS, open_session

OTHER_AGENT = "00000000-0000-4000-8000-00000000000a"
OTHER_USER = "00000000-0000-4000-8000-00000000000b"
OF_THE_USER = OwnerFilter(None, USER)
OF_THE_AGENT = OwnerFilter(AGENT, None)
OF_BOTH = OwnerFilter(AGENT, USER)

every_filter = pytest.mark.parametrize("whose", [OF_THE_USER, OF_THE_AGENT, OF_BOTH], ids=["user", "agent", "both"])


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def revocation(redis_client: RedisClient, metrics: Metrics) -> BulkRevocation:
    return BulkRevocation(redis_client, Keys(""), events_into(metrics))


async def create(store: SessionStore, number: int, agent_id: str = AGENT, user_id: str = USER) -> list[Session]:
    return await asyncio.gather(*(create_session(store, agent_id=agent_id, user_id=user_id) for _ in range(number)))


async def enlist_foreign(redis: Redis, owner_index: str, number: int) -> list[str]:
    """Ids of others in a lookup: created before all else, and not ended."""
    ids = [new_session_id() for _ in range(number)]
    an_hour_ago_ms = ms_from_time_reply(await redis.time()) - 60 * MINUTE_MS
    await redis.zadd(owner_index, {session_id: an_hour_ago_ms + place for place, session_id in enumerate(ids)})
    await redis.pexpire(owner_index, 60 * MINUTE_MS)
    return ids


async def sessions_asked_for(redis: Redis) -> int:
    """How often revoke.lua ran: it reads a hash of a session that lives, two of another, and nothing else does."""
    return (await commands_seen(redis)).get("hmget", 0)


def told(answers: Iterable[Revoked]) -> list[tuple[int, bool]]:
    """How many each call ended, and whether it left some to another."""
    return [(answer.number, answer.remainder is not None) for answer in answers]


async def call_by_call(revocation: BulkRevocation, whose: OwnerFilter) -> list[Revoked]:
    """Every call, each going on behind the one before, to the last."""
    answers = [await revocation.revoke(whose)]
    while (rest := answers[-1].remainder) is not None:
        answers.append(await revocation.revoke(whose, rest))
    return answers


async def states(store: SessionStore, sessions: Iterable[Session]) -> Counter[str]:
    return Counter([await attempt(store.get, session.id) for session in sessions])


class Birth:
    """A creation that is on its way: each step is one of its commands."""

    def __init__(self, redis: Redis, session_id: str, settings: Settings) -> None:
        self.id = session_id
        self._redis = redis
        self._settings = settings

    async def enlist(self, owner_index: str) -> None:
        await self._redis.eval(ADD_TO_INDEX.text, 1, owner_index, self.id, self._settings.owner_index_lifetime_ms, "")

    async def come_to_life(self) -> str:
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
        word, *_ = await self._redis.eval(CREATE.text, len(CREATE.keys), *map(str, command[3:]))
        return str(word, "ascii")


@pytest.fixture
async def under_way(real_redis: Redis, settings: Settings) -> Birth:
    """A creation that has enlisted its id with its agent and its user."""
    birth = Birth(real_redis, new_session_id(), settings)
    await birth.enlist(KEYS.agent(AGENT))
    await birth.enlist(KEYS.user(USER))
    return birth


# What ends


@every_filter
async def test_what_is_revoked_is_unknown_and_nothing_of_it_stays(
    revocation: BulkRevocation, store: SessionStore, real_redis: Redis, whose: OwnerFilter
) -> None:
    sessions = await create(store, 5)

    assert await revocation.revoke(whose) == Revoked(5, None)

    assert await states(store, sessions) == {"missing": 5}
    assert await contents(real_redis) == {}


async def test_where_there_is_nothing_nothing_ends(revocation: BulkRevocation, real_redis: Redis) -> None:
    assert await revocation.revoke(OF_THE_USER) == Revoked(0, None)
    assert await contents(real_redis) == {}


@pytest.mark.parametrize(
    ("whose", "alive"),
    [
        (OF_THE_USER, {"other user": 2, "other agent": 0, "neither": 2}),
        (OF_THE_AGENT, {"other user": 0, "other agent": 2, "neither": 2}),
        (OF_BOTH, {"other user": 2, "other agent": 2, "neither": 2}),
    ],
)
async def test_those_of_others_are_left_alone(
    revocation: BulkRevocation, store: SessionStore, whose: OwnerFilter, alive: dict[str, int]
) -> None:
    ours = await create(store, 2)
    others = {
        "other user": await create(store, 2, user_id=OTHER_USER),
        "other agent": await create(store, 2, agent_id=OTHER_AGENT),
        "neither": await create(store, 2, OTHER_AGENT, OTHER_USER),
    }

    await revocation.revoke(whose)

    assert await states(store, ours) == {"missing": 2}
    assert {name: (await states(store, sessions))["live"] for name, sessions in others.items()} == alive


async def test_those_of_others_stay_listed(revocation: BulkRevocation, store: SessionStore, real_redis: Redis) -> None:
    await create(store, 3)
    (other,) = await create(store, 1, agent_id=OTHER_AGENT)

    await revocation.revoke(OF_BOTH)

    assert await real_redis.zrange(KEYS.user(USER), 0, -1) == [other.id.encode()]
    assert await real_redis.zrange(KEYS.agent(OTHER_AGENT), 0, -1) == [other.id.encode()]
    assert None not in (await scores_of(real_redis, other)).values()


@every_filter
async def test_a_lookup_is_no_proof_of_whose_a_session_is(
    revocation: BulkRevocation, store: SessionStore, real_redis: Redis, whose: OwnerFilter
) -> None:
    (other,) = await create(store, 1, OTHER_AGENT, OTHER_USER)
    await real_redis.zadd(KEYS.user(USER), {other.id: 1})
    await real_redis.zadd(KEYS.agent(AGENT), {other.id: 1})
    await real_redis.pexpire(KEYS.user(USER), MINUTE_MS)
    await real_redis.pexpire(KEYS.agent(AGENT), MINUTE_MS)

    assert await revocation.revoke(whose) == Revoked(0, None)
    assert await attempt(store.get, other.id) == "live"


async def test_each_is_counted(revocation: BulkRevocation, store: SessionStore, metrics: Metrics) -> None:
    await create(store, 3)

    await revocation.revoke(OF_THE_USER)

    assert counted(metrics.ended) == {"revoked": 3}


async def test_one_that_has_expired_says_so_on(
    revocation: BulkRevocation, session: Session, store: SessionStore, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 31 * MINUTE_MS)

    assert await revocation.revoke(OF_BOTH) == Revoked(0, None)

    assert await attempt(store.get, session.id) == "expired"
    assert await real_redis.exists(KEYS.user(USER), KEYS.agent(AGENT)) == 0


async def test_one_that_was_lost_is_left_as_it_is(
    revocation: BulkRevocation, session: Session, real_redis: Redis
) -> None:
    await real_redis.delete(KEYS.session(session.id))
    before = await contents(real_redis)

    assert await revocation.revoke(OF_BOTH) == Revoked(0, None)

    assert await contents(real_redis) == before


# In bounded batches


async def test_a_call_ends_a_bounded_number(
    revocation: BulkRevocation, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_REVOKED", 4)
    monkeypatch.setattr(room, "_BATCH", 3)
    await create(store, 10)

    answers = [await revocation.revoke(OF_THE_USER) for _ in range(4)]

    assert told(answers) == [(4, True), (4, True), (2, False), (0, False)]


async def test_of_more_than_a_thousand_a_thousand_end_at_once(revocation: BulkRevocation, store: SessionStore) -> None:
    sessions = await create(store, 1001)

    answers = [await revocation.revoke(OF_THE_AGENT) for _ in range(2)]

    assert told(answers) == [(1000, True), (1, False)]
    assert await states(store, sessions) == {"missing": 1001}


async def test_those_that_stay_hold_up_none_behind_them(
    revocation: BulkRevocation, store: SessionStore, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_BATCH", 3)
    lost = await create(store, 7)
    await real_redis.delete(*(KEYS.session(session.id) for session in lost))
    await create(store, 7, agent_id=OTHER_AGENT)
    await create(store, 2)

    assert await revocation.revoke(OF_BOTH) == Revoked(2, None)


async def test_what_is_listed_later_is_left_alone(
    revocation: BulkRevocation, store: SessionStore, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await create(store, 2)
    await real_redis.zincrby(KEYS.user(USER), -1000, first.id)
    await real_redis.zincrby(KEYS.user(USER), -1000, second.id)
    later = list[Session]()

    async def and_then_some(redis_client: RedisClient, owner_index: str) -> Entry | None:
        last = await read_last(redis_client, owner_index)
        later.extend(await create(store, 3))
        return last

    monkeypatch.setattr("service.sessions.revocation.read_last", and_then_some)

    assert await revocation.revoke(OF_THE_USER) == Revoked(2, None)
    assert await states(store, later) == {"live": 3}


@pytest.mark.parametrize("owner_index", [KEYS.user(USER), KEYS.agent(AGENT)], ids=["user", "agent"])
async def test_of_what_only_one_lookup_holds_nothing_is_asked(
    revocation: BulkRevocation, store: SessionStore, real_redis: Redis, owner_index: str
) -> None:
    await enlist_foreign(real_redis, owner_index, 3000)
    await create(store, 2)
    await forget_commands(real_redis)

    assert await revocation.revoke(OF_BOTH) == Revoked(2, None)

    assert await sessions_asked_for(real_redis) == 2
    assert (await commands_seen(real_redis))["zmscore"] == 1
    assert await real_redis.zcard(owner_index) == 3000


async def test_of_two_long_lookups_only_what_both_hold_is_asked_for(
    revocation: BulkRevocation, store: SessionStore, real_redis: Redis
) -> None:
    foreign = [
        await enlist_foreign(real_redis, owner_index, 3000) for owner_index in (KEYS.user(USER), KEYS.agent(AGENT))
    ]
    await create(store, 2)
    await forget_commands(real_redis)

    assert await revocation.revoke(OF_BOTH) == Revoked(2, None)

    assert await sessions_asked_for(real_redis) == 2
    assert (await commands_seen(real_redis))["zmscore"] == 4
    assert await real_redis.exists(*(KEYS.tombstone(session_id) for ids in foreign for session_id in ids)) == 0
    assert await real_redis.zcard(KEYS.user(USER)) == await real_redis.zcard(KEYS.agent(AGENT)) == 3000


@pytest.mark.parametrize("whose", [OF_THE_USER, OF_THE_AGENT], ids=["user", "agent"])
async def test_a_call_looks_at_a_bounded_number_of_entries(
    revocation: BulkRevocation,
    store: SessionStore,
    real_redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    whose: OwnerFilter,
) -> None:
    monkeypatch.setattr(room, "MAX_EXAMINED", 5)
    monkeypatch.setattr(room, "_PAGE", 2)
    lost = await create(store, 12)
    for session in lost:  # made older: of one millisecond, some would stand behind the living
        await real_redis.delete(KEYS.session(session.id))
        await real_redis.zincrby(KEYS.user(USER), -1000, session.id)
        await real_redis.zincrby(KEYS.agent(AGENT), -1000, session.id)
    sessions = await create(store, 3)

    answers = await call_by_call(revocation, whose)

    assert told(answers) == [(0, True), (0, True), (3, False)]
    assert await states(store, sessions) == {"missing": 3}


async def test_between_two_it_goes_on_behind_what_it_looked_at(
    revocation: BulkRevocation, store: SessionStore, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_EXAMINED", 50)
    await enlist_foreign(real_redis, KEYS.user(USER), 120)
    await enlist_foreign(real_redis, KEYS.agent(AGENT), 130)
    sessions = await create(store, 7)

    stuck = [await revocation.revoke(OF_BOTH) for _ in range(2)]
    answers = await call_by_call(revocation, OF_BOTH)

    assert told(stuck) == [(0, True), (0, True)]
    assert told(answers) == [(0, True), (0, True), (7, False)]
    assert await states(store, sessions) == {"missing": 7}


async def test_it_stays_with_the_lookup_it_began_with(
    revocation: BulkRevocation, store: SessionStore, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_EXAMINED", 10)
    await enlist_foreign(real_redis, KEYS.agent(AGENT), 20)
    sessions = await create(store, 15)
    first = await revocation.revoke(OF_BOTH)
    await enlist_foreign(real_redis, KEYS.user(USER), 100)

    second = await revocation.revoke(OF_BOTH, first.remainder)

    assert told([first, second]) == [(10, True), (5, False)]
    assert await states(store, sessions) == {"missing": 15}


async def test_a_call_that_goes_on_leaves_alone_what_was_listed_after_the_first(
    revocation: BulkRevocation, store: SessionStore, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_REVOKED", 4)
    sessions = await create(store, 6)
    await real_redis.zadd(KEYS.user(USER), {session.id: session.created_at_ms - 1000 for session in sessions})
    first = await revocation.revoke(OF_THE_USER)
    later = await create(store, 3)

    second = await revocation.revoke(OF_THE_USER, first.remainder)

    assert told([first, second]) == [(4, True), (2, False)]
    assert await states(store, sessions) == {"missing": 6}
    assert await states(store, later) == {"live": 3}


async def test_who_only_calls_again_ends_them_all_while_each_call_ends_some(
    revocation: BulkRevocation, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_EXAMINED", 4)
    await create(store, 10)

    answers = [await revocation.revoke(OF_BOTH) for _ in range(3)]

    assert told(answers) == [(4, True), (4, True), (2, False)]


# Creations that are under way


@every_filter
async def test_a_creation_that_is_under_way_is_refused(
    revocation: BulkRevocation, under_way: Birth, store: SessionStore, whose: OwnerFilter
) -> None:
    assert await revocation.revoke(whose) == Revoked(0, None)

    assert await under_way.come_to_life() == "revoked"
    assert await attempt(store.get, under_way.id) == "missing"


async def test_the_mark_against_it_dies_after_ten_minutes(
    revocation: BulkRevocation, under_way: Birth, real_redis: Redis
) -> None:
    await revocation.revoke(OF_BOTH)

    mark = KEYS.tombstone(under_way.id)
    assert await keys_in(real_redis) == [mark]
    assert await real_redis.hkeys(mark) == [b"revokedAt"]
    assert int(await real_redis.hget(mark, "revokedAt") or 0) + REVOCATION_MARKER_MS == await real_redis.pexpiretime(
        mark
    )
    assert REVOCATION_MARKER_MS == 10 * MINUTE_MS


async def test_to_every_verb_a_marked_id_is_unknown(
    revocation: BulkRevocation, under_way: Birth, store: SessionStore
) -> None:
    await revocation.revoke(OF_THE_USER)

    answers = [
        await attempt(store.get, under_way.id),
        await attempt(store.heartbeat, under_way.id),
        await attempt(store.renew, under_way.id),
        await attempt(store.update_timeout, under_way.id, {"timeout_minutes": 60}),
        await attempt(store.delete, under_way.id),
    ]
    assert answers == ["missing"] * 5


async def test_a_creation_that_died_on_its_way_is_cleared_away(
    revocation: BulkRevocation, under_way: Birth, real_redis: Redis
) -> None:
    await revocation.revoke(OF_BOTH)

    assert await real_redis.exists(KEYS.user(USER), KEYS.agent(AGENT)) == 0


@pytest.mark.parametrize("longer", [KEYS.agent(AGENT), KEYS.user(USER)], ids=["user walked", "agent walked"])
@pytest.mark.parametrize(("agent_id", "user_id"), [(OTHER_AGENT, USER), (AGENT, OTHER_USER)])
async def test_a_creation_of_others_is_not_refused(
    revocation: BulkRevocation, real_redis: Redis, settings: Settings, agent_id: str, user_id: str, longer: str
) -> None:
    await enlist_foreign(real_redis, longer, 3)
    birth = Birth(real_redis, new_session_id(), settings)
    await birth.enlist(KEYS.agent(agent_id))
    await birth.enlist(KEYS.user(user_id))

    assert await revocation.revoke(OF_BOTH) == Revoked(0, None)

    assert await birth.come_to_life() == "live"


@pytest.mark.parametrize("longer", [KEYS.agent(AGENT), KEYS.user(USER)], ids=["user walked", "agent walked"])
@pytest.mark.parametrize(("steps", "outcome"), [(0, "live"), (1, "live"), (2, "missing"), (3, "missing")])
async def test_between_two_it_is_refused_once_it_is_listed_by_both(
    revocation: BulkRevocation,
    store: SessionStore,
    real_redis: Redis,
    settings: Settings,
    longer: str,
    steps: int,
    outcome: str,
) -> None:
    """What one of the lookups does not know yet when it is looked at is taken to begin after the call."""
    await enlist_foreign(real_redis, longer, 3)
    birth = Birth(real_redis, new_session_id(), settings)
    way = [birth.enlist(KEYS.agent(AGENT)), birth.enlist(KEYS.user(USER)), birth.come_to_life()]

    await one_after_another(way[:steps])
    await revocation.revoke(OF_BOTH)
    await one_after_another(way[steps:])

    assert await attempt(store.get, birth.id) == outcome


async def test_one_that_comes_to_life_before_it_is_marked_is_ended(
    revocation: BulkRevocation, under_way: Birth, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = revocation._process

    async def and_life_begins(whose: OwnerFilter, answers: dict[str, Reply]) -> int:
        monkeypatch.setattr(revocation, "_process", settle)
        await under_way.come_to_life()
        return await settle(whose, answers)

    monkeypatch.setattr(revocation, "_process", and_life_begins)

    assert await revocation.revoke(OF_BOTH) == Revoked(1, None)
    assert await attempt(store.get, under_way.id) == "missing"


async def test_the_store_says_that_it_was_revoked_and_leaves_no_trace(
    store: SessionStore,
    revocation: BulkRevocation,
    under_way: Birth,
    real_redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.sessions.creation.new_session_id", lambda *_: under_way.id)
    await revocation.revoke(OF_BOTH)

    with pytest.raises(SessionRevoked):
        await create_session(store)

    assert await keys_in(real_redis) == [KEYS.tombstone(under_way.id)]


async def test_a_creation_that_was_revoked_before_it_was_taken_back_does_not_begin_anew(
    redis_client: RedisClient, revocation: BulkRevocation, real_redis: Redis, settings: Settings
) -> None:
    revoked_first = store_on(
        Interrupted(redis_client, "delete", before=lambda: revocation.revoke(OF_THE_USER)), settings
    )
    session = await create_session(revoked_first)
    await store_on(redis_client, settings).delete(session.id)
    await real_redis.hset(KEYS.policy(AGENT), mapping={"timeoutMinutes": "60", "updatedAt": "1"})

    assert await attempt(create_session, revoked_first) == "revoked"
    assert await keys_in(real_redis) == [KEYS.policy(AGENT)]


async def test_a_creation_enlists_with_the_agent_before_the_user(
    store: SessionStore, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_order, sent = type(redis_client).execute_ordered, list[Command]()

    async def listening(redis_client: RedisClient, *commands: Command) -> list[Reply]:
        sent.extend(commands)
        return await in_order(redis_client, *commands)

    monkeypatch.setattr(type(redis_client), "execute_ordered", listening)
    await create(store, 1)

    assert [command[3] for command in sent if command[1] == ADD_TO_INDEX.sha] == [KEYS.agent(AGENT), KEYS.user(USER)]


# Races


@every_filter
async def test_among_creations_and_renewals_nothing_slips_through(
    revocation: BulkRevocation, store: SessionStore, real_redis: Redis, whose: OwnerFilter
) -> None:
    there = await create(store, 40)
    bystanders = await create(store, 10, OTHER_AGENT, OTHER_USER)
    births = asyncio.gather(*(attempt_to_create(store) for _ in range(150)))
    renewals = asyncio.gather(*(attempt(store.renew, session.id) for session in there * 3))

    first, born, _ = await asyncio.gather(revocation.revoke(whose), births, renewals)
    last = await revocation.revoke(whose)

    created = [session for session in born if session is not None]
    assert first.number + last.number == 40 + len(created)
    assert await states(store, [*there, *created]) == {"missing": 40 + len(created)}
    assert await states(store, bystanders) == {"live": 10}
    assert await real_redis.exists(KEYS.user(USER), KEYS.agent(AGENT)) == 0


async def attempt_to_create(store: SessionStore) -> Session | None:
    """The session, or None where it was revoked on its way."""
    try:
        return await create_session(store)
    except SessionRevoked:
        return None


@pytest.mark.parametrize(("steps", "outcome"), [(0, "live"), (1, "live"), (2, "missing"), (3, "missing")])
async def test_wherever_a_creation_is_when_the_call_begins_once_listed_it_does_not_outlive_it(
    revocation: BulkRevocation, store: SessionStore, real_redis: Redis, settings: Settings, steps: int, outcome: str
) -> None:
    """What the user's lookup does not know yet when it is read is taken to begin after the call."""
    birth = Birth(real_redis, new_session_id(), settings)
    way = [birth.enlist(KEYS.agent(AGENT)), birth.enlist(KEYS.user(USER)), birth.come_to_life()]

    await one_after_another(way[:steps])
    await revocation.revoke(OF_THE_USER)
    await one_after_another(way[steps:])

    assert await attempt(store.get, birth.id) == outcome


async def one_after_another(steps: Iterable[Awaitable[object]]) -> None:
    for step in steps:
        await step


async def test_renewals_do_not_outlive_it(revocation: BulkRevocation, store: SessionStore, real_redis: Redis) -> None:
    sessions = await create(store, 20)

    revoked, *answers = await asyncio.gather(
        revocation.revoke(OF_THE_USER), *(attempt(store.renew, session.id) for session in sessions * 5)
    )

    assert revoked == Revoked(20, None)
    assert set(answers) <= {"live", "missing"}
    assert await contents(real_redis) == {}


async def test_of_twenty_revocations_each_session_ends_once(
    revocation: BulkRevocation, store: SessionStore, metrics: Metrics, real_redis: Redis
) -> None:
    await create(store, 30)

    answers = await asyncio.gather(*(revocation.revoke(OF_BOTH) for _ in range(20)))

    assert sum(answer.number for answer in answers) == 30
    assert counted(metrics.ended) == {"revoked": 30}


# Over HTTP


async def test_sessions_are_ended_over_http(client: HttpClient) -> None:
    opened = [await open_session(client) for _ in range(3)]
    other = await open_session(client, userId=OTHER_USER)

    response = await client.delete(SESSIONS, params={"userId": USER.upper()})

    assert response.status == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert await response.json() == {"revoked": 3, "more": False, "nextCursor": None}
    assert [(await client.get(f"{SESSIONS}/{session_id}")).status for session_id in [*opened, other]] == [404] * 3 + [
        200
    ]


async def test_a_creation_that_met_a_revocation_is_a_conflict(
    client: HttpClient, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = new_session_id()
    monkeypatch.setattr("service.sessions.creation.new_session_id", lambda *_: session_id)
    await redis.zadd(KEYS.user(USER), {session_id: 1})
    await client.delete(SESSIONS, params={"userId": USER})

    response = await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER})

    refusal = await response.json()
    assert response.status == 409
    assert refusal["code"] == "SESSION_REVOKED"
    assert refusal["details"] == {"agentId": AGENT, "userId": USER}


@pytest.fixture
def two_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_REVOKED", 2)


@pytest.mark.usefixtures("two_a_call")
@pytest.mark.parametrize("query", [{"userId": USER}, {"agentId": AGENT}, {"agentId": AGENT, "userId": USER.upper()}])
async def test_over_http_a_call_goes_on_by_the_cursor_of_the_one_before(
    client: HttpClient, query: dict[str, str]
) -> None:
    opened = [await open_session(client) for _ in range(5)]

    first = await revoked(client, **query)
    second = await revoked(client, **query, cursor=first["nextCursor"])
    third = await revoked(client, **query, cursor=second["nextCursor"])

    assert [(told["revoked"], told["more"]) for told in (first, second, third)] == [(2, True), (2, True), (1, False)]
    assert third["nextCursor"] is None
    assert {(await client.get(f"{SESSIONS}/{session_id}")).status for session_id in opened} == {404}


async def revoked(client: HttpClient, **query: str) -> dict[str, Any]:
    response = await client.delete(SESSIONS, params=query)
    assert response.status == 200
    told: dict[str, Any] = await response.json()
    return told


@pytest.mark.usefixtures("two_a_call")
@pytest.mark.parametrize("query", [{"agentId": AGENT}, {"userId": OTHER_USER}, {"agentId": AGENT, "userId": USER}])
async def test_a_cursor_goes_on_with_its_own_filters_only(client: HttpClient, query: dict[str, str]) -> None:
    opened = [await open_session(client) for _ in range(5)]
    given = (await revoked(client, userId=USER))["nextCursor"]

    refused = await client.delete(SESSIONS, params={**query, "cursor": given})

    assert await invalid_fields(refused) == {"cursor": "belongs to a revocation with other filters"}
    assert Counter([(await client.get(f"{SESSIONS}/{id_}")).status for id_ in opened]) == {404: 2, 200: 3}


async def test_a_cursor_of_a_listing_is_none_of_a_revocation_nor_the_other_way_round(client: HttpClient) -> None:
    of_a_listing = cursors.encode_position(SessionFilter(user_id=USER), Position(0, "1700000000000", "07"))
    of_a_revocation = cursors.encode_remainder(OF_THE_USER, A_REST)

    revoking = await client.delete(SESSIONS, params={"userId": USER, "cursor": of_a_listing})
    listing = await client.get(SESSIONS, params={"userId": USER, "cursor": of_a_revocation})

    assert await invalid_fields(revoking) == {"cursor": "must be the nextCursor of a revocation"}
    assert await invalid_fields(listing) == {"cursor": "must be the nextCursor of a page"}


@pytest.mark.parametrize(
    "unfolded",
    [
        [],
        None,
        [None, USER, 0, "1", "id", "2"],
        [None, USER, 1, "1", "id", "2", "id"],
        [None, USER, -1, "1", "id", "2", "id"],
        [None, USER, True, "1", "id", "2", "id"],
        [None, USER, False, "1", "id", "2", "id"],
        [None, USER, "0", "1", "id", "2", "id"],
        [None, USER, 0, "nan", "id", "2", "id"],
        [None, USER, 0, "1", "id", "(2", "id"],
        [None, USER, 0, "1", None, "2", "id"],
        [None, USER, 0, 1, "id", 2, "id"],
    ],
)
async def test_what_no_revocation_gave_is_no_cursor(client: HttpClient, unfolded: object) -> None:
    refused = await client.delete(SESSIONS, params={"userId": USER, "cursor": folded(unfolded)})

    assert await invalid_fields(refused) == {"cursor": "must be the nextCursor of a revocation"}


async def test_a_cursor_holds_what_was_left(client: HttpClient) -> None:
    given = cursors.encode_remainder(OF_BOTH, A_REST)

    assert cursors.decode_remainder(given) == (OF_BOTH, A_REST)
    assert len(given) <= 400
    assert await revoked(client, agentId=AGENT, userId=USER, cursor=given) == {
        "revoked": 0,
        "more": False,
        "nextCursor": None,
    }


A_REST = Remainder(0, Entry("1700000000000", AGENT), Entry("1700000000001", USER))
NEITHER = dict.fromkeys(("agentId", "userId"), "at least one of agentId and userId is required")


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ({}, NEITHER),
        ({"userid": USER}, {**NEITHER, "userid": "is not a parameter of this request"}),
        ({"userId": ""}, {"userId": "must be a UUID in the 36-character form"}),
        ({"userId": USER, "agentID": AGENT}, {"agentID": "is not a parameter of this request"}),
        ({"userId": USER, "limit": "1"}, {"limit": "is not a parameter of this request"}),
        ({"cursor": "A"}, {**NEITHER, "cursor": "must be the nextCursor of a revocation"}),
        (
            {"userId": "1", "cursor": cursors.encode_remainder(OF_BOTH, A_REST)},
            {"userId": "must be a UUID in the 36-character form"},
        ),
        ({"userId": USER, "nearExpiration": "true"}, {"nearExpiration": "is not a parameter of this request"}),
        ([("userId", USER), ("userId", OTHER_USER)], {"userId": "must not be repeated"}),
        ({"userId": USER, "agentId": "*"}, {"agentId": "must be a UUID in the 36-character form"}),
    ],
)
async def test_what_is_not_clear_ends_nothing(
    client: HttpClient, query: dict[str, str], fields: dict[str, str]
) -> None:
    session_id = await open_session(client)

    refused = await client.delete(SESSIONS, params=query)

    assert await invalid_fields(refused) == fields
    assert (await client.get(f"{SESSIONS}/{session_id}")).status == 200


# In trouble


@asynccontextmanager
async def out_of_memory(redis: Redis) -> AsyncIterator[None]:
    await configured(redis, "maxmemory", 1)
    try:
        yield
    finally:
        await configured(redis, "maxmemory", 0)


async def test_what_cannot_be_marked_is_unavailable_and_what_could_be_ended_has_ended(
    revocation: BulkRevocation, store: SessionStore, under_way: Birth, metrics: Metrics, real_redis: Redis
) -> None:
    sessions = await create(store, 5)

    async with out_of_memory(real_redis):
        with pytest.raises(StoreUnavailable):
            await revocation.revoke(OF_THE_USER)

    assert counted(metrics.ended) == {"revoked": 5}
    assert await states(store, sessions) == {"missing": 5}
    assert await real_redis.zrange(KEYS.user(USER), 0, -1) == [under_way.id.encode()]
