"""Creating sessions with an Idempotency-Key while other requests, changes and failures interrupt the creation."""

import pytest
from redis.asyncio import Redis

from service.errors import (
    AgentNotFound,
    SessionRevoked,
    StoreUnavailable,
)
from service.redis_client.client import RedisClient
from service.redis_client.errors import ScriptError
from service.sessions.policies import Policies
from service.sessions.revocation import BulkRevocation, OwnerFilter
from service.sessions.scripts import CREATE
from service.sessions.session import CreatedSession
from service.sessions.store import SessionStore
from service.settings import Settings
from service.shared_secret import SharedSecret
from tests.conftest import AGENT, USER, create_session, new_session_store
from tests.redis_contents import KEYS, keys_in
from tests.sessions.idempotency import KEY, REQUEST, InterruptedCreation, indexed_ids, live_ids

MINUTE_MS = 60_000


@pytest.fixture
def interruption(redis_client: RedisClient) -> InterruptedCreation:
    return InterruptedCreation(redis_client)


@pytest.fixture
def interrupted(interruption: InterruptedCreation, settings: Settings) -> SessionStore:
    """A store whose first creation is interrupted."""
    return new_session_store(interruption, settings)


async def test_a_request_that_creates_the_session_after_the_check_is_the_first(
    store: SessionStore, interrupted: SessionStore, interruption: InterruptedCreation, real_redis: Redis
) -> None:
    others: list[CreatedSession] = []

    async def create_another() -> None:
        others.append(await store.create(REQUEST, KEY))

    interruption.before = create_another

    created = await interrupted.create(REQUEST, KEY)

    assert created.is_replay is True
    assert created.session.id == others[0].session.id
    assert await indexed_ids(real_redis) == {"user": [created.session.id], "agent": [created.session.id]}


async def test_a_creation_under_an_outdated_policy_keeps_its_id(
    store: SessionStore,
    interrupted: SessionStore,
    interruption: InterruptedCreation,
    policies: Policies,
    real_redis: Redis,
) -> None:
    await create_session(interrupted, *REQUEST)  # caches that there is no policy
    await policies.put(AGENT, {"max_duration_minutes": 120})
    others: list[CreatedSession] = []

    async def create_another() -> None:
        others.append(await store.create(REQUEST, KEY))

    interruption.after = create_another

    created = await interrupted.create(REQUEST, KEY)

    assert (created.is_replay, others[0].is_replay) == (False, True)
    assert created.session.id == others[0].session.id
    assert created.session.timeout.max_duration_minutes == 120
    assert (await store.get(created.session.id)).timeout == created.session.timeout
    assert created.session.stored.revision == b"1"


async def test_changes_by_other_requests_during_the_creation_stay(
    store: SessionStore, interrupted: SessionStore, interruption: InterruptedCreation, policies: Policies
) -> None:
    await create_session(interrupted, *REQUEST)
    await policies.put(AGENT, {"max_duration_minutes": 120})

    async def change_it() -> None:
        others = await store.create(REQUEST, KEY)
        await store.update_timeout(others.session.id, {"max_duration_minutes": 240})

    interruption.after = change_it

    created = await interrupted.create(REQUEST, KEY)

    assert created.session.timeout.max_duration_minutes == 240
    assert created.session.stored.revision == b"2"


async def test_a_session_that_is_revoked_during_the_creation_is_removed_with_its_record(
    interrupted: SessionStore,
    interruption: InterruptedCreation,
    policies: Policies,
    revocation: BulkRevocation,
    real_redis: Redis,
) -> None:
    await policies.put(AGENT, {"max_duration_minutes": 120})
    await interrupted.delete((await create_session(interrupted, *REQUEST)).id)
    await policies.delete(AGENT)

    async def revoke_all() -> None:
        await revocation.revoke(OwnerFilter(None, USER))

    interruption.after = revoke_all

    with pytest.raises(SessionRevoked):
        await interrupted.create(REQUEST, KEY)

    assert await keys_in(real_redis) == []


async def test_nothing_stays_if_the_required_policy_was_deleted(
    redis_client: RedisClient, policies: Policies, real_redis: Redis
) -> None:
    requires_known_agent = new_session_store(redis_client, Settings(session_require_known_agent=True))
    await policies.put(AGENT, {"max_duration_minutes": 120})
    await requires_known_agent.delete((await create_session(requires_known_agent, *REQUEST)).id)
    await policies.delete(AGENT)

    with pytest.raises(AgentNotFound):
        await requires_known_agent.create(REQUEST, KEY)

    assert await keys_in(real_redis) == []


async def test_creation_works_after_a_script_flush(store: SessionStore, real_redis: Redis) -> None:
    await real_redis.script_flush()

    created = await store.create(REQUEST, KEY)

    assert await live_ids(real_redis) == [created.session.id]
    assert await indexed_ids(real_redis) == {"user": [created.session.id], "agent": [created.session.id]}


async def test_a_creation_continues_if_only_create_lua_is_cached(
    store: SessionStore, redis_client: RedisClient, real_redis: Redis
) -> None:
    await redis_client.broadcast(("PING",))  # connecting loads the scripts
    await real_redis.script_flush()
    await real_redis.script_load(CREATE.text)

    created = await store.create(REQUEST, KEY)

    assert created.is_replay is False
    assert await live_ids(real_redis) == [created.session.id]
    assert await indexed_ids(real_redis) == {"user": [created.session.id], "agent": [created.session.id]}


@pytest.mark.parametrize("owner_index", [KEYS.agent(AGENT), KEYS.user(USER)], ids=["agent", "user"])
async def test_no_record_stays_if_an_owner_index_has_the_wrong_type(
    store: SessionStore, real_redis: Redis, owner_index: str
) -> None:
    await real_redis.set(owner_index, "not an index", px=MINUTE_MS)

    with pytest.raises(ScriptError):
        await store.create(REQUEST, KEY)

    assert await keys_in(real_redis) == [owner_index]


async def test_a_deleted_draft_keeps_the_record_of_another_request(
    store: SessionStore, interrupted: SessionStore, interruption: InterruptedCreation, real_redis: Redis
) -> None:
    others: list[CreatedSession] = []

    async def create_another() -> None:
        others.append(await store.create(REQUEST, KEY))
        await real_redis.set(KEYS.user(USER), "not an index", px=MINUTE_MS)

    interruption.before = create_another

    with pytest.raises(ScriptError):
        await interrupted.create(REQUEST, KEY)

    assert await live_ids(real_redis) == [others[0].session.id]
    assert (await store.create(REQUEST, KEY)).session.id == others[0].session.id


async def test_a_repeated_request_finds_a_session_after_a_lost_reply(
    store: SessionStore, interrupted: SessionStore, interruption: InterruptedCreation, real_redis: Redis
) -> None:
    async def lose_the_reply() -> None:
        raise StoreUnavailable("the connection broke")

    interruption.after = lose_the_reply
    with pytest.raises(StoreUnavailable):
        await interrupted.create(REQUEST, KEY)

    created = await store.create(REQUEST, KEY)

    assert created.is_replay is True
    assert await live_ids(real_redis) == [created.session.id]
    assert await indexed_ids(real_redis) == {"user": [created.session.id], "agent": [created.session.id]}


async def test_nothing_is_created_while_the_shared_secret_is_not_loaded(
    redis_client: RedisClient, settings: Settings, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.conftest.SECRET", SharedSecret())

    with pytest.raises(StoreUnavailable):
        await new_session_store(redis_client, settings).create(REQUEST, KEY)

    assert await keys_in(real_redis) == []
