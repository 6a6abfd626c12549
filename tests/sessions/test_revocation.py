"""Bulk revocation: which sessions end, and how many per call."""

from collections.abc import Iterable

import pytest
from redis.asyncio import Redis

from service.errors import StoreUnavailable
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.sessions import revocation as revocation_module
from service.sessions.index_scan import Entry, read_last
from service.sessions.revocation import BulkRevocation, OwnerFilter, Revoked
from service.sessions.session import Session
from service.sessions.store import SessionStore
from tests.aging import age
from tests.attempt import attempt
from tests.conftest import AGENT, USER
from tests.counted import counted
from tests.redis_contents import KEYS, command_counts, contents, reset_command_counts, scores_of
from tests.sessions.revocation import (
    AGENT_FILTER,
    BOTH_FILTER,
    OTHER_AGENT,
    OTHER_USER,
    USER_FILTER,
    PendingCreation,
    create,
    each_filter,
    index_other_ids,
    out_of_memory,
    states,
)
from tests.test_walkthrough import MINUTE_MS


async def revoke_runs(redis: Redis) -> int:
    """How often revoke.lua ran on live sessions. For each it reads a hash, and nothing else does."""
    return (await command_counts(redis)).get("hmget", 0)


def summarized(results: Iterable[Revoked]) -> list[tuple[int, bool]]:
    """How many sessions each call ended, and whether it left some for another call."""
    return [(result.number, result.remainder is not None) for result in results]


async def revoke_all(revocation: BulkRevocation, filter_: OwnerFilter) -> list[Revoked]:
    """Call until nothing is left, and return the results."""
    results = [await revocation.revoke(filter_)]
    while (remainder := results[-1].remainder) is not None:
        results.append(await revocation.revoke(filter_, remainder))
    return results


# Ended sessions


@each_filter
async def test_a_revocation_removes_all_keys_of_the_sessions(
    revocation: BulkRevocation, store: SessionStore, real_redis: Redis, filter_: OwnerFilter
) -> None:
    sessions = await create(store, 5)

    assert await revocation.revoke(filter_) == Revoked(5, None)

    assert await states(store, sessions) == {"missing": 5}
    assert await contents(real_redis) == {}


async def test_a_revocation_without_sessions_ends_none(revocation: BulkRevocation, real_redis: Redis) -> None:
    assert await revocation.revoke(USER_FILTER) == Revoked(0, None)
    assert await contents(real_redis) == {}


@pytest.mark.parametrize(
    ("filter_", "live"),
    [
        (USER_FILTER, {"other user": 2, "other agent": 0, "neither": 2}),
        (AGENT_FILTER, {"other user": 0, "other agent": 2, "neither": 2}),
        (BOTH_FILTER, {"other user": 2, "other agent": 2, "neither": 2}),
    ],
)
async def test_sessions_of_other_owners_stay_live(
    revocation: BulkRevocation, store: SessionStore, filter_: OwnerFilter, live: dict[str, int]
) -> None:
    matching = await create(store, 2)
    others = {
        "other user": await create(store, 2, user_id=OTHER_USER),
        "other agent": await create(store, 2, agent_id=OTHER_AGENT),
        "neither": await create(store, 2, OTHER_AGENT, OTHER_USER),
    }

    await revocation.revoke(filter_)

    assert await states(store, matching) == {"missing": 2}
    assert {name: (await states(store, sessions))["live"] for name, sessions in others.items()} == live


async def test_sessions_of_other_owners_stay_in_their_indexes(
    revocation: BulkRevocation, store: SessionStore, real_redis: Redis
) -> None:
    await create(store, 3)
    (other,) = await create(store, 1, agent_id=OTHER_AGENT)

    await revocation.revoke(BOTH_FILTER)

    assert await real_redis.zrange(KEYS.user(USER), 0, -1) == [other.id.encode()]
    assert await real_redis.zrange(KEYS.agent(OTHER_AGENT), 0, -1) == [other.id.encode()]
    assert None not in (await scores_of(real_redis, other)).values()


@each_filter
async def test_a_session_of_another_owner_in_the_index_stays_live(
    revocation: BulkRevocation, store: SessionStore, real_redis: Redis, filter_: OwnerFilter
) -> None:
    (other,) = await create(store, 1, OTHER_AGENT, OTHER_USER)
    await real_redis.zadd(KEYS.user(USER), {other.id: 1})
    await real_redis.zadd(KEYS.agent(AGENT), {other.id: 1})
    await real_redis.pexpire(KEYS.user(USER), MINUTE_MS)
    await real_redis.pexpire(KEYS.agent(AGENT), MINUTE_MS)

    assert await revocation.revoke(filter_) == Revoked(0, None)
    assert await attempt(store.get, other.id) == "live"


async def test_every_revoked_session_is_counted(
    revocation: BulkRevocation, store: SessionStore, metrics: Metrics
) -> None:
    await create(store, 3)

    await revocation.revoke(USER_FILTER)

    assert counted(metrics.ended) == {"revoked": 3}


async def test_an_expired_session_stays_expired(
    revocation: BulkRevocation, session: Session, store: SessionStore, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 31 * MINUTE_MS)

    assert await revocation.revoke(BOTH_FILTER) == Revoked(0, None)

    assert await attempt(store.get, session.id) == "expired"
    assert await real_redis.exists(KEYS.user(USER), KEYS.agent(AGENT)) == 0


async def test_a_lost_session_is_not_changed(revocation: BulkRevocation, session: Session, real_redis: Redis) -> None:
    await real_redis.delete(KEYS.session(session.id))
    before = await contents(real_redis)

    assert await revocation.revoke(BOTH_FILTER) == Revoked(0, None)

    assert await contents(real_redis) == before


# Limits of a call


async def test_a_call_ends_a_limited_number_of_sessions(
    revocation: BulkRevocation, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocation_module, "MAX_REVOKED", 4)
    monkeypatch.setattr(revocation_module, "_BATCH", 3)
    await create(store, 10)

    results = [await revocation.revoke(USER_FILTER) for _ in range(4)]

    assert summarized(results) == [(4, True), (4, True), (2, False), (0, False)]


async def test_a_call_ends_at_most_a_thousand_sessions(revocation: BulkRevocation, store: SessionStore) -> None:
    sessions = await create(store, 1001)

    results = [await revocation.revoke(AGENT_FILTER) for _ in range(2)]

    assert summarized(results) == [(1000, True), (1, False)]
    assert await states(store, sessions) == {"missing": 1001}


async def test_sessions_that_stay_do_not_hide_those_behind_them(
    revocation: BulkRevocation, store: SessionStore, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocation_module, "_BATCH", 3)
    lost = await create(store, 7)
    await real_redis.delete(*(KEYS.session(session.id) for session in lost))
    await create(store, 7, agent_id=OTHER_AGENT)
    await create(store, 2)

    assert await revocation.revoke(BOTH_FILTER) == Revoked(2, None)


async def test_sessions_that_are_created_during_the_call_stay_live(
    revocation: BulkRevocation, store: SessionStore, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await create(store, 2)
    await real_redis.zincrby(KEYS.user(USER), -1000, first.id)
    await real_redis.zincrby(KEYS.user(USER), -1000, second.id)
    later = list[Session]()

    async def read_last_then_create(redis_client: RedisClient, owner_index: str) -> Entry | None:
        last = await read_last(redis_client, owner_index)
        later.extend(await create(store, 3))
        return last

    monkeypatch.setattr("service.sessions.revocation.read_last", read_last_then_create)

    assert await revocation.revoke(USER_FILTER) == Revoked(2, None)
    assert await states(store, later) == {"live": 3}


@pytest.mark.parametrize("owner_index", [KEYS.user(USER), KEYS.agent(AGENT)], ids=["user", "agent"])
async def test_ids_in_only_one_of_two_indexes_are_skipped(
    revocation: BulkRevocation, store: SessionStore, real_redis: Redis, owner_index: str
) -> None:
    await index_other_ids(real_redis, owner_index, 3000)
    await create(store, 2)
    await reset_command_counts(real_redis)

    assert await revocation.revoke(BOTH_FILTER) == Revoked(2, None)

    assert await revoke_runs(real_redis) == 2
    assert (await command_counts(real_redis))["zmscore"] == 1
    assert await real_redis.zcard(owner_index) == 3000


async def test_only_ids_in_both_indexes_are_examined(
    revocation: BulkRevocation, store: SessionStore, real_redis: Redis
) -> None:
    other_ids = [
        await index_other_ids(real_redis, owner_index, 3000) for owner_index in (KEYS.user(USER), KEYS.agent(AGENT))
    ]
    await create(store, 2)
    await reset_command_counts(real_redis)

    assert await revocation.revoke(BOTH_FILTER) == Revoked(2, None)

    assert await revoke_runs(real_redis) == 2
    assert (await command_counts(real_redis))["zmscore"] == 4
    assert await real_redis.exists(*(KEYS.tombstone(session_id) for ids in other_ids for session_id in ids)) == 0
    assert await real_redis.zcard(KEYS.user(USER)) == await real_redis.zcard(KEYS.agent(AGENT)) == 3000


@pytest.mark.parametrize("filter_", [USER_FILTER, AGENT_FILTER], ids=["user", "agent"])
async def test_a_call_examines_a_limited_number_of_entries(
    revocation: BulkRevocation,
    store: SessionStore,
    real_redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    filter_: OwnerFilter,
) -> None:
    monkeypatch.setattr(revocation_module, "MAX_EXAMINED", 5)
    monkeypatch.setattr(revocation_module, "_PAGE", 2)
    lost = await create(store, 12)
    for session in lost:  # older than the live sessions
        await real_redis.delete(KEYS.session(session.id))
        await real_redis.zincrby(KEYS.user(USER), -1000, session.id)
        await real_redis.zincrby(KEYS.agent(AGENT), -1000, session.id)
    sessions = await create(store, 3)

    results = await revoke_all(revocation, filter_)

    assert summarized(results) == [(0, True), (0, True), (3, False)]
    assert await states(store, sessions) == {"missing": 3}


async def test_the_next_call_continues_behind_the_examined_entries(
    revocation: BulkRevocation, store: SessionStore, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocation_module, "MAX_EXAMINED", 50)
    await index_other_ids(real_redis, KEYS.user(USER), 120)
    await index_other_ids(real_redis, KEYS.agent(AGENT), 130)
    sessions = await create(store, 7)

    repeated = [await revocation.revoke(BOTH_FILTER) for _ in range(2)]
    results = await revoke_all(revocation, BOTH_FILTER)

    assert summarized(repeated) == [(0, True), (0, True)]
    assert summarized(results) == [(0, True), (0, True), (7, False)]
    assert await states(store, sessions) == {"missing": 7}


async def test_the_next_call_continues_in_the_same_index(
    revocation: BulkRevocation, store: SessionStore, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocation_module, "MAX_EXAMINED", 10)
    await index_other_ids(real_redis, KEYS.agent(AGENT), 20)
    sessions = await create(store, 15)
    first = await revocation.revoke(BOTH_FILTER)
    await index_other_ids(real_redis, KEYS.user(USER), 100)

    second = await revocation.revoke(BOTH_FILTER, first.remainder)

    assert summarized([first, second]) == [(10, True), (5, False)]
    assert await states(store, sessions) == {"missing": 15}


async def test_sessions_that_are_created_between_the_calls_stay_live(
    revocation: BulkRevocation, store: SessionStore, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocation_module, "MAX_REVOKED", 4)
    sessions = await create(store, 6)
    await real_redis.zadd(KEYS.user(USER), {session.id: session.created_at_ms - 1000 for session in sessions})
    first = await revocation.revoke(USER_FILTER)
    later = await create(store, 3)

    second = await revocation.revoke(USER_FILTER, first.remainder)

    assert summarized([first, second]) == [(4, True), (2, False)]
    assert await states(store, sessions) == {"missing": 6}
    assert await states(store, later) == {"live": 3}


async def test_repeated_calls_without_a_cursor_end_all_sessions_if_each_ends_some(
    revocation: BulkRevocation, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocation_module, "MAX_EXAMINED", 4)
    await create(store, 10)

    results = [await revocation.revoke(BOTH_FILTER) for _ in range(3)]

    assert summarized(results) == [(4, True), (4, True), (2, False)]


# Failures


async def test_without_memory_for_markers_sessions_end_before_the_call_fails(
    revocation: BulkRevocation, store: SessionStore, pending: PendingCreation, metrics: Metrics, real_redis: Redis
) -> None:
    sessions = await create(store, 5)

    async with out_of_memory(real_redis):
        with pytest.raises(StoreUnavailable):
            await revocation.revoke(USER_FILTER)

    assert counted(metrics.ended) == {"revoked": 5}
    assert await states(store, sessions) == {"missing": 5}
    assert await real_redis.zrange(KEYS.user(USER), 0, -1) == [pending.id.encode()]
