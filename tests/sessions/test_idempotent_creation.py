"""Creating sessions with an Idempotency-Key: repeated requests return the session of the first one."""

import asyncio
import json
from collections import Counter

import pytest
from redis.asyncio import Redis

from service.errors import (
    IdempotencyKeyReused,
    SessionExpired,
    SessionNotFound,
)
from service.redis_client.client import RedisClient
from service.sessions.idempotency import IdempotencyKey, IdempotencyRecord, IdempotencyRecords
from service.sessions.metadata import encode_metadata
from service.sessions.session import NewSession
from service.sessions.store import SessionStore
from service.settings import Settings
from tests.aging import age
from tests.conftest import AGENT, SECRET, USER, create_session, new_session_store
from tests.redis_contents import KEYS, command_counts, contents, fields_of, keys_in
from tests.sessions.idempotency import KEY, REQUEST, indexed_ids, live_ids

MINUTE_MS = 60_000
DAY_MS = 1440 * MINUTE_MS
MAX_DEPTH = 254
"""The deepest nesting that orjson writes."""
OTHER_ID = "00000000-0000-4000-8000-000000000001"

OTHER_REQUESTS = {
    "agent": REQUEST._replace(agent_id=OTHER_ID),
    "user": REQUEST._replace(user_id=OTHER_ID),
    "timeout": REQUEST._replace(timeout={"timeout_minutes": 61}),
    "no timeout": REQUEST._replace(timeout={}),
    "another member": REQUEST._replace(timeout={"max_duration_minutes": 60}),
    "metadata": REQUEST._replace(metadata=b'{"channel":"web","topic":{"a":1,"b":[2,2]}}'),
    "no metadata": REQUEST._replace(metadata=b"{}"),
    "kind of value": REQUEST._replace(metadata=b'{"channel":"web","topic":{"a":"1","b":[2]}}'),
}


def record_of(redis_client: RedisClient, key: IdempotencyKey = KEY) -> IdempotencyRecord:
    return IdempotencyRecords(redis_client, KEYS, SECRET, lifetime_ms=DAY_MS).record_of(key, REQUEST)


async def test_the_first_request_with_a_key_creates_a_session(store: SessionStore, real_redis: Redis) -> None:
    created = await store.create(REQUEST, KEY)

    assert created.is_replay is False
    assert created.session.timeout.timeout_minutes == 60
    assert (await fields_of(real_redis, created.session))["metadata"] == REQUEST.metadata.decode()
    assert await indexed_ids(real_redis) == {"user": [created.session.id], "agent": [created.session.id]}


async def test_a_repeated_request_returns_the_same_session(store: SessionStore, real_redis: Redis) -> None:
    first = await store.create(REQUEST, KEY)
    before = await contents(real_redis)

    second = await store.create(REQUEST, KEY)

    assert second.is_replay is True
    assert second.session.id == first.session.id
    assert await contents(real_redis) == before


async def test_a_repeated_request_returns_the_current_state(store: SessionStore) -> None:
    first = await store.create(REQUEST, KEY)
    await store.update_metadata(first.session.id, {"channel": "phone"})

    second = await store.create(REQUEST, KEY)

    assert second.session.stored.revision == b"2"
    assert second.session.metadata.startswith(b'{"channel":"phone"')


async def test_metadata_may_be_nested_as_deeply_as_without_a_key(store: SessionStore) -> None:
    deep = encode_metadata(json.loads('{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH))

    first = await store.create(REQUEST._replace(metadata=deep), KEY)
    second = await store.create(REQUEST._replace(metadata=deep), KEY)

    assert (second.session.id, second.session.metadata) == (first.session.id, deep)


async def test_the_order_of_members_does_not_matter(store: SessionStore) -> None:
    first = await store.create(REQUEST._replace(timeout={"timeout_minutes": 60, "auto_renew": True}), KEY)
    turned = NewSession(
        AGENT, USER, {"auto_renew": True, "timeout_minutes": 60}, b'{ "topic": {"b": [2], "a": 1}, "channel": "web"}'
    )

    assert (await store.create(turned, KEY)).session.id == first.session.id


@pytest.mark.parametrize("other_request", OTHER_REQUESTS.values(), ids=OTHER_REQUESTS)
async def test_a_key_with_another_request_is_rejected(
    store: SessionStore, real_redis: Redis, other_request: NewSession
) -> None:
    await store.create(REQUEST, KEY)
    before = await contents(real_redis)

    with pytest.raises(IdempotencyKeyReused):
        await store.create(other_request, KEY)

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
async def test_other_keys_and_keys_of_other_callers_create_other_sessions(
    store: SessionStore, other: IdempotencyKey
) -> None:
    first = await store.create(REQUEST, KEY)

    second = await store.create(REQUEST, other)

    assert second.is_replay is False
    assert second.session.id != first.session.id


async def test_a_request_without_a_key_creates_another_session(store: SessionStore, real_redis: Redis) -> None:
    await store.create(REQUEST, KEY)

    await create_session(store, *REQUEST)

    assert len(await live_ids(real_redis)) == 2


async def test_neither_the_key_nor_the_caller_is_stored_in_redis(
    store: SessionStore, redis_client: RedisClient, real_redis: Redis
) -> None:
    await store.create(REQUEST, KEY)

    record = KEYS.record(record_of(redis_client).digest)
    held = f"{await keys_in(real_redis)} {await real_redis.hgetall(record)}"
    assert KEY.key not in held
    assert KEY.caller not in held


async def test_the_record_names_the_session_and_is_in_its_shard(
    store: SessionStore, redis_client: RedisClient, real_redis: Redis
) -> None:
    created = await store.create(REQUEST, KEY)

    record = record_of(redis_client)
    assert created.session.id[:2] == record.shard
    assert await real_redis.hgetall(KEYS.record(record.digest)) == {
        b"sessionId": created.session.id.encode(),
        b"fingerprint": record.fingerprint.encode(),
    }


async def test_the_record_expires_a_day_after_the_creation(
    store: SessionStore, redis_client: RedisClient, real_redis: Redis
) -> None:
    created = await store.create(REQUEST, KEY)
    await store.create(REQUEST, KEY)

    record = KEYS.record(record_of(redis_client).digest)
    assert await real_redis.pexpiretime(record) == created.session.created_at_ms + DAY_MS


async def test_a_key_without_a_record_creates_a_new_session(
    store: SessionStore, redis_client: RedisClient, real_redis: Redis
) -> None:
    first = await store.create(REQUEST, KEY)
    await real_redis.delete(KEYS.record(record_of(redis_client).digest))

    second = await store.create(REQUEST, KEY)

    assert second.is_replay is False
    assert second.session.id != first.session.id


async def test_a_repeated_request_for_an_expired_session_is_expired(store: SessionStore, real_redis: Redis) -> None:
    created = await store.create(REQUEST, KEY)
    await age(real_redis, created.session.id, 60 * MINUTE_MS)

    with pytest.raises(SessionExpired) as caught:
        await store.create(REQUEST, KEY)

    assert caught.value.facts["sessionId"] == created.session.id
    assert await live_ids(real_redis) == []


async def test_a_repeated_request_for_a_deleted_session_is_missing(store: SessionStore, real_redis: Redis) -> None:
    created = await store.create(REQUEST, KEY)
    await store.delete(created.session.id)

    with pytest.raises(SessionNotFound):
        await store.create(REQUEST, KEY)

    assert await live_ids(real_redis) == []


async def test_a_key_costs_one_more_read(store: SessionStore, real_redis: Redis) -> None:
    await create_session(store, *REQUEST)
    before = await command_counts(real_redis)
    await create_session(store, *REQUEST)
    without = await command_counts(real_redis) - before
    before = await command_counts(real_redis)

    await store.create(REQUEST, KEY)

    with_key = await command_counts(real_redis) - before
    assert with_key["evalsha"] == without["evalsha"]
    assert with_key["hmget"] == without["hmget"] + 2  # the read of the record, and that of the script


async def test_a_hundred_concurrent_requests_on_three_replicas_create_one_session(
    redis_client: RedisClient, settings: Settings, real_redis: Redis
) -> None:
    stores = [new_session_store(redis_client, settings) for _ in range(3)]

    results = await asyncio.gather(*(stores[number % 3].create(REQUEST, KEY) for number in range(100)))

    (session_id,) = {created.session.id for created in results}
    assert Counter(created.is_replay for created in results) == {False: 1, True: 99}
    assert await live_ids(real_redis) == [session_id]
    assert await indexed_ids(real_redis) == {"user": [session_id], "agent": [session_id]}
    assert await real_redis.zrange(KEYS.expiry(session_id[:2]), 0, -1) == [session_id.encode()]


async def test_only_one_of_different_concurrent_requests_succeeds(store: SessionStore, real_redis: Redis) -> None:
    requests = [REQUEST._replace(metadata=b'{"a":%d}' % number) for number in range(20)]

    results = await asyncio.gather(*(_outcome(store, request) for request in requests))

    assert Counter(results) == {"created": 1, "reused": 19}
    assert len(await live_ids(real_redis)) == 1
    assert [len(ids) for ids in (await indexed_ids(real_redis)).values()] == [1, 1]


async def _outcome(store: SessionStore, request: NewSession) -> str:
    try:
        created = await store.create(request, KEY)
    except IdempotencyKeyReused:
        return "reused"
    return "replayed" if created.is_replay else "created"
