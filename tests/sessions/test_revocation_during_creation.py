"""Bulk revocation while sessions are created and renewed."""

import asyncio
from collections.abc import Awaitable, Iterable

import pytest
from redis.asyncio import Redis

from service.errors import SessionRevoked
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient, Reply
from service.redis_client.scripts import Command
from service.sessions.keys import REVOCATION_MARKER_MS
from service.sessions.revocation import BulkRevocation, OwnerFilter, Revoked
from service.sessions.scripts import ADD_TO_INDEX
from service.sessions.session import Session, new_session_id
from service.sessions.store import SessionStore
from service.settings import Settings
from tests.attempt import attempt
from tests.conftest import AGENT, USER, create_session, new_session_store
from tests.counted import counted
from tests.interruption import Interrupted
from tests.redis_contents import KEYS, contents, keys_in
from tests.sessions.revocation import (
    BOTH_FILTER,
    OTHER_AGENT,
    OTHER_USER,
    USER_FILTER,
    PendingCreation,
    create,
    each_filter,
    index_other_ids,
    states,
)
from tests.test_walkthrough import MINUTE_MS


@each_filter
async def test_a_pending_creation_is_refused(
    revocation: BulkRevocation, pending: PendingCreation, store: SessionStore, filter_: OwnerFilter
) -> None:
    assert await revocation.revoke(filter_) == Revoked(0, None)

    assert await pending.create() == "revoked"
    assert await attempt(store.get, pending.id) == "missing"


async def test_a_marker_expires_after_ten_minutes(
    revocation: BulkRevocation, pending: PendingCreation, real_redis: Redis
) -> None:
    await revocation.revoke(BOTH_FILTER)

    marker = KEYS.tombstone(pending.id)
    assert await keys_in(real_redis) == [marker]
    assert await real_redis.hkeys(marker) == [b"revokedAt"]
    assert int(await real_redis.hget(marker, "revokedAt") or 0) + REVOCATION_MARKER_MS == await real_redis.pexpiretime(
        marker
    )
    assert REVOCATION_MARKER_MS == 10 * MINUTE_MS


async def test_a_marked_id_is_missing_for_every_verb(
    revocation: BulkRevocation, pending: PendingCreation, store: SessionStore
) -> None:
    await revocation.revoke(USER_FILTER)

    results = [
        await attempt(store.get, pending.id),
        await attempt(store.heartbeat, pending.id),
        await attempt(store.renew, pending.id),
        await attempt(store.update_timeout, pending.id, {"timeout_minutes": 60}),
        await attempt(store.delete, pending.id),
    ]
    assert results == ["missing"] * 5


async def test_the_id_of_an_abandoned_creation_is_removed_from_the_indexes(
    revocation: BulkRevocation, pending: PendingCreation, real_redis: Redis
) -> None:
    await revocation.revoke(BOTH_FILTER)

    assert await real_redis.exists(KEYS.user(USER), KEYS.agent(AGENT)) == 0


@pytest.mark.parametrize("longer", [KEYS.agent(AGENT), KEYS.user(USER)], ids=["user scanned", "agent scanned"])
@pytest.mark.parametrize(("agent_id", "user_id"), [(OTHER_AGENT, USER), (AGENT, OTHER_USER)])
async def test_a_pending_creation_of_another_owner_is_not_refused(
    revocation: BulkRevocation, real_redis: Redis, settings: Settings, agent_id: str, user_id: str, longer: str
) -> None:
    await index_other_ids(real_redis, longer, 3)
    creation = PendingCreation(real_redis, new_session_id(), settings)
    await creation.add_to(KEYS.agent(agent_id))
    await creation.add_to(KEYS.user(user_id))

    assert await revocation.revoke(BOTH_FILTER) == Revoked(0, None)

    assert await creation.create() == "live"


@pytest.mark.parametrize("longer", [KEYS.agent(AGENT), KEYS.user(USER)], ids=["user scanned", "agent scanned"])
@pytest.mark.parametrize(("done", "outcome"), [(0, "live"), (1, "live"), (2, "missing"), (3, "missing")])
async def test_a_pending_creation_is_refused_once_both_indexes_contain_it(
    revocation: BulkRevocation,
    store: SessionStore,
    real_redis: Redis,
    settings: Settings,
    longer: str,
    done: int,
    outcome: str,
) -> None:
    """A creation that one of the indexes does not contain yet counts as later than the call."""
    await index_other_ids(real_redis, longer, 3)
    creation = PendingCreation(real_redis, new_session_id(), settings)
    steps = [creation.add_to(KEYS.agent(AGENT)), creation.add_to(KEYS.user(USER)), creation.create()]

    await run(steps[:done])
    await revocation.revoke(BOTH_FILTER)
    await run(steps[done:])

    assert await attempt(store.get, creation.id) == outcome


async def test_a_session_that_is_created_before_the_marker_is_ended(
    revocation: BulkRevocation, pending: PendingCreation, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = revocation._process

    async def create_then_process(filter_: OwnerFilter, replies: dict[str, Reply]) -> int:
        monkeypatch.setattr(revocation, "_process", process)
        await pending.create()
        return await process(filter_, replies)

    monkeypatch.setattr(revocation, "_process", create_then_process)

    assert await revocation.revoke(BOTH_FILTER) == Revoked(1, None)
    assert await attempt(store.get, pending.id) == "missing"


async def test_the_store_raises_session_revoked_and_leaves_only_the_marker(
    store: SessionStore,
    revocation: BulkRevocation,
    pending: PendingCreation,
    real_redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.sessions.creation.new_session_id", lambda *_: pending.id)
    await revocation.revoke(BOTH_FILTER)

    with pytest.raises(SessionRevoked):
        await create_session(store)

    assert await keys_in(real_redis) == [KEYS.tombstone(pending.id)]


async def test_a_draft_that_was_revoked_before_its_deletion_is_not_created_again(
    redis_client: RedisClient, revocation: BulkRevocation, real_redis: Redis, settings: Settings
) -> None:
    interrupted = new_session_store(
        Interrupted(redis_client, "delete", before=lambda: revocation.revoke(USER_FILTER)), settings
    )
    session = await create_session(interrupted)
    await new_session_store(redis_client, settings).delete(session.id)
    await real_redis.hset(KEYS.policy(AGENT), mapping={"timeoutMinutes": "60", "updatedAt": "1"})

    assert await attempt(create_session, interrupted) == "revoked"
    assert await keys_in(real_redis) == [KEYS.policy(AGENT)]


async def test_a_creation_adds_its_id_to_the_index_of_the_agent_first(
    store: SessionStore, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute_ordered, sent = type(redis_client).execute_ordered, list[Command]()

    async def recording(redis_client: RedisClient, *commands: Command) -> list[Reply]:
        sent.extend(commands)
        return await execute_ordered(redis_client, *commands)

    monkeypatch.setattr(type(redis_client), "execute_ordered", recording)
    await create(store, 1)

    assert [command[3] for command in sent if command[1] == ADD_TO_INDEX.sha] == [KEYS.agent(AGENT), KEYS.user(USER)]


# Races


@each_filter
async def test_no_session_survives_among_creations_and_renewals(
    revocation: BulkRevocation, store: SessionStore, real_redis: Redis, filter_: OwnerFilter
) -> None:
    existing = await create(store, 40)
    bystanders = await create(store, 10, OTHER_AGENT, OTHER_USER)
    creations = asyncio.gather(*(attempt_to_create(store) for _ in range(150)))
    renewals = asyncio.gather(*(attempt(store.renew, session.id) for session in existing * 3))

    first, created_or_none, _ = await asyncio.gather(revocation.revoke(filter_), creations, renewals)
    last = await revocation.revoke(filter_)

    created = [session for session in created_or_none if session is not None]
    assert first.number + last.number == 40 + len(created)
    assert await states(store, [*existing, *created]) == {"missing": 40 + len(created)}
    assert await states(store, bystanders) == {"live": 10}
    assert await real_redis.exists(KEYS.user(USER), KEYS.agent(AGENT)) == 0


async def attempt_to_create(store: SessionStore) -> Session | None:
    """Return the session, or None if it was revoked during its creation."""
    try:
        return await create_session(store)
    except SessionRevoked:
        return None


@pytest.mark.parametrize(("done", "outcome"), [(0, "live"), (1, "live"), (2, "missing"), (3, "missing")])
async def test_a_pending_creation_in_the_index_of_the_user_does_not_survive(
    revocation: BulkRevocation, store: SessionStore, real_redis: Redis, settings: Settings, done: int, outcome: str
) -> None:
    """A creation that the user's index does not contain yet counts as later than the call."""
    creation = PendingCreation(real_redis, new_session_id(), settings)
    steps = [creation.add_to(KEYS.agent(AGENT)), creation.add_to(KEYS.user(USER)), creation.create()]

    await run(steps[:done])
    await revocation.revoke(USER_FILTER)
    await run(steps[done:])

    assert await attempt(store.get, creation.id) == outcome


async def run(steps: Iterable[Awaitable[object]]) -> None:
    for step in steps:
        await step


async def test_no_renewed_session_survives(revocation: BulkRevocation, store: SessionStore, real_redis: Redis) -> None:
    sessions = await create(store, 20)

    revoked, *results = await asyncio.gather(
        revocation.revoke(USER_FILTER), *(attempt(store.renew, session.id) for session in sessions * 5)
    )

    assert revoked == Revoked(20, None)
    assert set(results) <= {"live", "missing"}
    assert await contents(real_redis) == {}


async def test_twenty_concurrent_revocations_end_each_session_once(
    revocation: BulkRevocation, store: SessionStore, metrics: Metrics, real_redis: Redis
) -> None:
    await create(store, 30)

    results = await asyncio.gather(*(revocation.revoke(BOTH_FILTER) for _ in range(20)))

    assert sum(result.number for result in results) == 30
    assert counted(metrics.ended) == {"revoked": 30}
