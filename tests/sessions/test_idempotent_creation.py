"""Creating a session with a key: whoever comes first creates it, and whoever comes again is told of it."""

import asyncio
import json
from collections import Counter
from typing import cast

import pytest
from redis.asyncio import Redis

from service.errors import (
    AgentNotFound,
    IdempotencyKeyReused,
    SessionExpired,
    SessionNotFound,
    SessionRevoked,
    StoreUnavailable,
)
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient, Reply
from service.redis_client.errors import ScriptError
from service.redis_client.scripts import Command
from service.sessions.idempotency import IdempotencyKey, IdempotencyRecord, IdempotencyRecords
from service.sessions.metadata import encode_metadata
from service.sessions.policies import Policies
from service.sessions.revocation import BulkRevocation, OwnerFilter
from service.sessions.scripts import CREATE, SCRIPTS
from service.sessions.session import CreatedSession, NewSession
from service.sessions.store import SessionStore
from service.settings import Settings
from service.shared_secret import SharedSecret
from tests.aging import age
from tests.conftest import AGENT, SECRET, USER, create_session, events_into, policies_on, store_on
from tests.sessions.evidence import KEYS, commands_seen, contents, fields_of, keys_in

MINUTE_MS = 60_000
DAY_MS = 1440 * MINUTE_MS
DEEPEST = 254
"""As far as orjson writes."""
SOMEONE_ELSE = "00000000-0000-4000-8000-000000000001"

KEY = IdempotencyKey("web", "8e03978e-40d5-43e8-bc93-6894a57f9324")
WISH = NewSession(AGENT, USER, {"timeout_minutes": 60}, b'{"channel":"web","topic":{"a":1,"b":[2]}}')

OTHER_WISHES = {
    "agent": WISH._replace(agent_id=SOMEONE_ELSE),
    "user": WISH._replace(user_id=SOMEONE_ELSE),
    "timeout": WISH._replace(timeout={"timeout_minutes": 61}),
    "no timeout": WISH._replace(timeout={}),
    "another member": WISH._replace(timeout={"max_duration_minutes": 60}),
    "metadata": WISH._replace(metadata=b'{"channel":"web","topic":{"a":1,"b":[2,2]}}'),
    "no metadata": WISH._replace(metadata=b"{}"),
    "kind of value": WISH._replace(metadata=b'{"channel":"web","topic":{"a":"1","b":[2]}}'),
}


class Happening:
    """The calls of a lane; around the first creation by script something else happens, or it is answered otherwise."""

    def __init__(self, redis_client: RedisClient) -> None:
        self.main = redis_client
        self.read_hash, self.read_hashes, self.query, self.execute = (
            redis_client.read_hash,
            redis_client.read_hashes,
            redis_client.query,
            redis_client.execute,
        )
        self.broadcast, self.aclose = redis_client.broadcast, redis_client.aclose
        self.before, self.after = _nothing, _nothing

    @property
    def supports_multi_slot(self) -> bool:
        return self.main.supports_multi_slot

    async def execute_ordered(self, *commands: Command) -> list[Reply]:
        if SCRIPTS.command_name(commands[-1]) != "create":
            return await self.main.execute_ordered(*commands)
        before, self.before, after, self.after = self.before, _nothing, self.after, _nothing
        await before()
        replies = await self.main.execute_ordered(*commands)
        await after()
        return replies


async def _nothing() -> None:
    """Nothing happens."""


@pytest.fixture
def eventful(redis_client: RedisClient) -> Happening:
    return Happening(redis_client)


@pytest.fixture
def late(eventful: Happening, settings: Settings) -> SessionStore:
    """A store to which something happens while it creates."""
    return store_on(eventful, settings)


@pytest.fixture
def policies(redis_client: RedisClient, settings: Settings) -> Policies:
    return policies_on(redis_client, settings)


@pytest.fixture
def revocation(redis_client: RedisClient) -> BulkRevocation:
    return BulkRevocation(redis_client, KEYS, events_into(Metrics()))


def record_of(redis_client: RedisClient, key: IdempotencyKey = KEY) -> IdempotencyRecord:
    return IdempotencyRecords(redis_client, KEYS, SECRET, lifetime_ms=DAY_MS).record_of(key, WISH)


async def living(redis: Redis) -> list[str]:
    """The ids of all sessions that have a hash."""
    keys = [key.rpartition(":")[2] for key in await keys_in(redis) if key.startswith("session:")]
    return [key for key in keys if await redis.exists(KEYS.session(key))]


async def ids_in(redis: Redis, key: str) -> list[str]:
    ids = cast(list[bytes], await redis.zrange(key, 0, -1))
    return [session_id.decode() for session_id in ids]


async def listed(redis: Redis) -> dict[str, list[str]]:
    owner_indexes = {"user": KEYS.user(USER), "agent": KEYS.agent(AGENT)}
    return {name: await ids_in(redis, key) for name, key in owner_indexes.items()}


async def test_the_first_is_created_as_any(store: SessionStore, real_redis: Redis) -> None:
    created = await store.create(WISH, KEY)

    assert created.is_replay is False
    assert created.session.timeout.timeout_minutes == 60
    assert (await fields_of(real_redis, created.session))["metadata"] == WISH.metadata.decode()
    assert await listed(real_redis) == {"user": [created.session.id], "agent": [created.session.id]}


async def test_whoever_comes_again_is_told_of_the_same_session(store: SessionStore, real_redis: Redis) -> None:
    first = await store.create(WISH, KEY)
    before = await contents(real_redis)

    second = await store.create(WISH, KEY)

    assert second.is_replay is True
    assert second.session.id == first.session.id
    assert await contents(real_redis) == before


async def test_it_is_told_as_it_is_now(store: SessionStore) -> None:
    first = await store.create(WISH, KEY)
    await store.update_metadata(first.session.id, {"channel": "phone"})

    second = await store.create(WISH, KEY)

    assert second.session.stored.revision == b"2"
    assert second.session.metadata.startswith(b'{"channel":"phone"')


async def test_metadata_may_be_nested_as_deeply_as_without_a_key(store: SessionStore) -> None:
    deep = encode_metadata(json.loads('{"a":' * DEEPEST + "1" + "}" * DEEPEST))

    first = await store.create(WISH._replace(metadata=deep), KEY)
    second = await store.create(WISH._replace(metadata=deep), KEY)

    assert (second.session.id, second.session.metadata) == (first.session.id, deep)


async def test_members_have_no_order(store: SessionStore) -> None:
    first = await store.create(WISH._replace(timeout={"timeout_minutes": 60, "auto_renew": True}), KEY)
    turned = NewSession(
        AGENT, USER, {"auto_renew": True, "timeout_minutes": 60}, b'{ "topic": {"b": [2], "a": 1}, "channel": "web"}'
    )

    assert (await store.create(turned, KEY)).session.id == first.session.id


@pytest.mark.parametrize("new_session", OTHER_WISHES.values(), ids=OTHER_WISHES)
async def test_with_another_request_the_key_is_refused(
    store: SessionStore, real_redis: Redis, new_session: NewSession
) -> None:
    await store.create(WISH, KEY)
    before = await contents(real_redis)

    with pytest.raises(IdempotencyKeyReused):
        await store.create(new_session, KEY)

    assert await contents(real_redis) == before


@pytest.mark.parametrize(
    "other",
    [
        IdempotencyKey("web", "another"),
        IdempotencyKey("phone", KEY.key),
        IdempotencyKey("", KEY.key),
        IdempotencyKey("we", "b"),
    ],
)
async def test_another_key_and_another_callers_are_others(store: SessionStore, other: IdempotencyKey) -> None:
    first = await store.create(WISH, KEY)

    second = await store.create(WISH, other)

    assert second.is_replay is False
    assert second.session.id != first.session.id


async def test_without_a_key_each_is_a_session_of_its_own(store: SessionStore, real_redis: Redis) -> None:
    await store.create(WISH, KEY)

    await create_session(store, *WISH)

    assert len(await living(real_redis)) == 2


async def test_neither_the_key_nor_its_caller_is_in_redis(
    store: SessionStore, redis_client: RedisClient, real_redis: Redis
) -> None:
    await store.create(WISH, KEY)

    record = KEYS.record(record_of(redis_client).digest)
    held = f"{await keys_in(real_redis)} {await real_redis.hgetall(record)}"
    assert KEY.key not in held
    assert KEY.caller not in held


async def test_its_record_leads_to_it_and_lies_beside_it(
    store: SessionStore, redis_client: RedisClient, real_redis: Redis
) -> None:
    created = await store.create(WISH, KEY)

    record = record_of(redis_client)
    assert created.session.id[:2] == record.shard
    assert await real_redis.hgetall(KEYS.record(record.digest)) == {
        b"sessionId": created.session.id.encode(),
        b"fingerprint": record.fingerprint.encode(),
    }


async def test_its_record_dies_a_day_after_its_creation(
    store: SessionStore, redis_client: RedisClient, real_redis: Redis
) -> None:
    created = await store.create(WISH, KEY)
    await store.create(WISH, KEY)

    record = KEYS.record(record_of(redis_client).digest)
    assert await real_redis.pexpiretime(record) == created.session.created_at_ms + DAY_MS


async def test_once_its_record_is_gone_the_key_is_new(
    store: SessionStore, redis_client: RedisClient, real_redis: Redis
) -> None:
    first = await store.create(WISH, KEY)
    await real_redis.delete(KEYS.record(record_of(redis_client).digest))

    second = await store.create(WISH, KEY)

    assert second.is_replay is False
    assert second.session.id != first.session.id


async def test_an_expired_one_is_expired_and_not_created_again(store: SessionStore, real_redis: Redis) -> None:
    created = await store.create(WISH, KEY)
    await age(real_redis, created.session.id, 60 * MINUTE_MS)

    with pytest.raises(SessionExpired) as refusal:
        await store.create(WISH, KEY)

    assert refusal.value.facts["sessionId"] == created.session.id
    assert await living(real_redis) == []


async def test_a_deleted_one_is_unknown_and_not_created_again(store: SessionStore, real_redis: Redis) -> None:
    created = await store.create(WISH, KEY)
    await store.delete(created.session.id)

    with pytest.raises(SessionNotFound):
        await store.create(WISH, KEY)

    assert await living(real_redis) == []


async def test_redis_is_asked_once_more_than_without_a_key(store: SessionStore, real_redis: Redis) -> None:
    await create_session(store, *WISH)
    before = await commands_seen(real_redis)
    await create_session(store, *WISH)
    without = await commands_seen(real_redis) - before
    before = await commands_seen(real_redis)

    await store.create(WISH, KEY)

    with_key = await commands_seen(real_redis) - before
    assert with_key["evalsha"] == without["evalsha"]
    assert with_key["hmget"] == without["hmget"] + 2  # the look, and the script's own


async def test_a_hundred_at_once_over_three_replicas_are_one(
    redis_client: RedisClient, settings: Settings, real_redis: Redis
) -> None:
    stores = [store_on(redis_client, settings) for _ in range(3)]

    answers = await asyncio.gather(*(stores[number % 3].create(WISH, KEY) for number in range(100)))

    (session_id,) = {created.session.id for created in answers}
    assert Counter(created.is_replay for created in answers) == {False: 1, True: 99}
    assert await living(real_redis) == [session_id]
    assert await listed(real_redis) == {"user": [session_id], "agent": [session_id]}
    assert await real_redis.zrange(KEYS.expiry(session_id[:2]), 0, -1) == [session_id.encode()]


async def test_of_different_requests_at_once_one_wins(store: SessionStore, real_redis: Redis) -> None:
    wishes = [WISH._replace(metadata=b'{"a":%d}' % number) for number in range(20)]

    answers = await asyncio.gather(*(_outcome(store, new_session) for new_session in wishes))

    assert Counter(answers) == {"created": 1, "reused": 19}
    assert len(await living(real_redis)) == 1
    assert [len(ids) for ids in (await listed(real_redis)).values()] == [1, 1]


async def _outcome(store: SessionStore, new_session: NewSession) -> str:
    try:
        created = await store.create(new_session, KEY)
    except IdempotencyKeyReused:
        return "reused"
    return "repeated" if created.is_replay else "created"


async def test_one_that_comes_between_the_look_and_the_creation_is_the_first(
    store: SessionStore, late: SessionStore, eventful: Happening, real_redis: Redis
) -> None:
    told: list[CreatedSession] = []

    async def another_comes() -> None:
        told.append(await store.create(WISH, KEY))

    eventful.before = another_comes

    created = await late.create(WISH, KEY)

    assert created.is_replay is True
    assert created.session.id == told[0].session.id
    assert await listed(real_redis) == {"user": [created.session.id], "agent": [created.session.id]}


async def test_under_a_policy_that_was_not_supposed_it_keeps_its_id(
    store: SessionStore, late: SessionStore, eventful: Happening, policies: Policies, real_redis: Redis
) -> None:
    await create_session(late, *WISH)  # it remembers that there is no policy
    await policies.put(AGENT, {"max_duration_minutes": 120})
    told: list[CreatedSession] = []

    async def another_comes() -> None:
        told.append(await store.create(WISH, KEY))

    eventful.after = another_comes

    created = await late.create(WISH, KEY)

    assert (created.is_replay, told[0].is_replay) == (False, True)
    assert created.session.id == told[0].session.id
    assert created.session.timeout.max_duration_minutes == 120
    assert (await store.get(created.session.id)).timeout == created.session.timeout
    assert created.session.stored.revision == b"1"


async def test_what_others_made_of_it_meanwhile_stays(
    store: SessionStore, late: SessionStore, eventful: Happening, policies: Policies
) -> None:
    await create_session(late, *WISH)
    await policies.put(AGENT, {"max_duration_minutes": 120})

    async def another_changes_it() -> None:
        told = await store.create(WISH, KEY)
        await store.update_timeout(told.session.id, {"max_duration_minutes": 240})

    eventful.after = another_changes_it

    created = await late.create(WISH, KEY)

    assert created.session.timeout.max_duration_minutes == 240
    assert created.session.stored.revision == b"2"


async def test_one_that_was_revoked_before_it_could_go_on_is_gone_with_its_record(
    late: SessionStore, eventful: Happening, policies: Policies, revocation: BulkRevocation, real_redis: Redis
) -> None:
    await policies.put(AGENT, {"max_duration_minutes": 120})
    await late.delete((await create_session(late, *WISH)).id)
    await policies.delete(AGENT)

    async def revoked() -> None:
        await revocation.revoke(OwnerFilter(None, USER))

    eventful.after = revoked

    with pytest.raises(SessionRevoked):
        await late.create(WISH, KEY)

    assert await keys_in(real_redis) == []


async def test_of_an_agent_that_is_known_no_more_nothing_stays(
    redis_client: RedisClient, policies: Policies, real_redis: Redis
) -> None:
    strict = store_on(redis_client, Settings(session_require_known_agent=True))
    await policies.put(AGENT, {"max_duration_minutes": 120})
    await strict.delete((await create_session(strict, *WISH)).id)
    await policies.delete(AGENT)

    with pytest.raises(AgentNotFound):
        await strict.create(WISH, KEY)

    assert await keys_in(real_redis) == []


async def test_it_is_created_after_redis_forgot_the_scripts(store: SessionStore, real_redis: Redis) -> None:
    await real_redis.script_flush()

    created = await store.create(WISH, KEY)

    assert await living(real_redis) == [created.session.id]
    assert await listed(real_redis) == {"user": [created.session.id], "agent": [created.session.id]}


@pytest.mark.parametrize("kind", ["server", "sentinel"])
async def test_where_redis_knew_no_script_but_that_of_creation_it_goes_on_and_is_listed(
    store: SessionStore, redis_client: RedisClient, real_redis: Redis
) -> None:
    await redis_client.broadcast(("PING",))  # a connection makes its server know the scripts
    await real_redis.script_flush()
    await real_redis.script_load(CREATE.text)

    created = await store.create(WISH, KEY)

    assert created.is_replay is False
    assert await living(real_redis) == [created.session.id]
    assert await listed(real_redis) == {"user": [created.session.id], "agent": [created.session.id]}


@pytest.mark.parametrize("owner_index", [KEYS.agent(AGENT), KEYS.user(USER)], ids=["agent", "user"])
async def test_where_a_lookup_cannot_know_it_its_record_does_not_stay_either(
    store: SessionStore, real_redis: Redis, owner_index: str
) -> None:
    await real_redis.set(owner_index, "no lookup", px=MINUTE_MS)

    with pytest.raises(ScriptError):
        await store.create(WISH, KEY)

    assert await keys_in(real_redis) == [owner_index]


async def test_what_is_taken_back_leaves_the_record_of_another(
    store: SessionStore, late: SessionStore, eventful: Happening, real_redis: Redis
) -> None:
    told: list[CreatedSession] = []

    async def another_comes() -> None:
        told.append(await store.create(WISH, KEY))
        await real_redis.set(KEYS.user(USER), "no lookup", px=MINUTE_MS)

    eventful.before = another_comes

    with pytest.raises(ScriptError):
        await late.create(WISH, KEY)

    assert await living(real_redis) == [told[0].session.id]
    assert (await store.create(WISH, KEY)).session.id == told[0].session.id


async def test_one_whose_answer_is_lost_is_found_by_whoever_comes_again(
    store: SessionStore, late: SessionStore, eventful: Happening, real_redis: Redis
) -> None:
    async def the_answer_is_lost() -> None:
        raise StoreUnavailable("the connection broke")

    eventful.after = the_answer_is_lost
    with pytest.raises(StoreUnavailable):
        await late.create(WISH, KEY)

    created = await store.create(WISH, KEY)

    assert created.is_replay is True
    assert await living(real_redis) == [created.session.id]
    assert await listed(real_redis) == {"user": [created.session.id], "agent": [created.session.id]}


async def test_while_the_secret_is_not_known_nothing_is_created(
    redis_client: RedisClient, settings: Settings, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.conftest.SECRET", SharedSecret())

    with pytest.raises(StoreUnavailable):
        await store_on(redis_client, settings).create(WISH, KEY)

    assert await keys_in(real_redis) == []
