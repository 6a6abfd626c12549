"""Conditional changes: a change that names another revision than the session has is rejected."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from service.errors import PreconditionFailed
from service.redis_client.client import RedisClient
from service.sessions.session import Revisions, Session
from service.sessions.store import SessionStore
from service.settings import Settings
from tests.aging import age
from tests.attempt import attempt
from tests.conftest import new_session_store
from tests.interruption import Interrupted
from tests.redis_contents import KEYS, contents, fields_of

MINUTE_MS = 60_000
UNKNOWN_ID = "ab90c3cc-0d44-4b50-8888-8dd25736052a"

FIRST: Revisions = frozenset([b"1"])
SECOND: Revisions = frozenset([b"2"])
NONE: Revisions = frozenset()

Change = dict[str, Any]
Verb = Callable[[SessionStore, str, Change, Revisions], Awaitable[Session]]

VERBS: dict[str, tuple[Verb, Change]] = {
    "update_timeout": (SessionStore.update_timeout, {"timeout_minutes": 60}),
    "update_metadata": (SessionStore.update_metadata, {"channel": "phone"}),
}

each_verb = pytest.mark.parametrize(("verb", "change"), VERBS.values(), ids=VERBS)


@each_verb
async def test_a_change_of_the_current_revision_succeeds(
    store: SessionStore, session: Session, verb: Verb, change: Change
) -> None:
    changed = await verb(store, session.id, change, FIRST)

    assert changed.stored.revision == b"2"


@each_verb
async def test_a_change_of_another_revision_changes_nothing(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb, change: Change
) -> None:
    before = await contents(real_redis)

    with pytest.raises(PreconditionFailed) as caught:
        await verb(store, session.id, change, SECOND)

    assert caught.value.facts == {"sessionId": session.id, "etag": '"1"'}
    assert await contents(real_redis) == before


@each_verb
async def test_one_of_several_revisions_must_match(
    store: SessionStore, session: Session, verb: Verb, change: Change
) -> None:
    assert await attempt(verb, store, session.id, change, SECOND | FIRST) == "live"


@each_verb
async def test_a_change_without_any_revision_is_rejected(
    store: SessionStore, session: Session, verb: Verb, change: Change
) -> None:
    assert await attempt(verb, store, session.id, change, NONE) == "other_revision"


@each_verb
@pytest.mark.parametrize("revision", [b"2", b"1", b"122", b"212"])
async def test_a_part_of_the_revision_does_not_match(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb, change: Change, revision: bytes
) -> None:
    await real_redis.hset(KEYS.session(session.id), "revision", 12)

    assert await attempt(verb, store, session.id, change, frozenset([revision])) == "other_revision"


@each_verb
async def test_only_one_of_twenty_changes_of_the_same_revision_succeeds(
    redis_client: RedisClient, settings: Settings, session: Session, real_redis: Redis, verb: Verb, change: Change
) -> None:
    stores = [new_session_store(redis_client, settings) for _ in range(2)] * 10

    outcomes = await asyncio.gather(*(attempt(verb, store, session.id, change, FIRST) for store in stores))

    assert Counter(outcomes) == {"live": 1, "other_revision": 19}
    assert (await fields_of(real_redis, session))["revision"] == "2"


@each_verb
async def test_an_expired_session_is_expired_for_any_revision(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb, change: Change
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)

    assert await attempt(verb, store, session.id, change, SECOND) == "expired"


@each_verb
async def test_an_unknown_session_is_missing_for_any_revision(store: SessionStore, verb: Verb, change: Change) -> None:
    assert await attempt(verb, store, UNKNOWN_ID, change, SECOND) == "missing"


async def test_the_revision_is_checked_before_the_new_expiry(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 20 * MINUTE_MS)

    assert await attempt(store.update_timeout, session.id, {"timeout_minutes": 15}, SECOND) == "other_revision"
    assert await attempt(store.update_timeout, session.id, {"timeout_minutes": 15}, FIRST) == "in_the_past"


async def test_a_patch_is_not_merged_again_after_a_change_to_another_revision(
    redis_client: RedisClient, settings: Settings, session: Session, real_redis: Redis
) -> None:
    other = new_session_store(redis_client, settings)
    interrupted = Interrupted(
        redis_client, "update_metadata", before=lambda: other.update_metadata(session.id, {"channel": "pigeon"})
    )

    outcome = await attempt(
        new_session_store(interrupted, settings).update_metadata, session.id, {"channel": "phone"}, FIRST
    )

    assert outcome == "other_revision"
    assert (await fields_of(real_redis, session))["metadata"] == '{"channel":"pigeon"}'


async def test_a_patch_is_merged_again_after_a_change_to_another_named_revision(
    redis_client: RedisClient, settings: Settings, session: Session
) -> None:
    other = new_session_store(redis_client, settings)
    interrupted = Interrupted(
        redis_client, "update_metadata", before=lambda: other.update_metadata(session.id, {"topic": "weather"})
    )

    changed = await new_session_store(interrupted, settings).update_metadata(
        session.id, {"channel": "phone"}, FIRST | SECOND
    )

    assert changed.metadata == b'{"channel":"phone","topic":"weather"}'
    assert changed.stored.revision == b"3"


async def test_only_changes_of_timeout_and_metadata_increment_the_revision(
    store: SessionStore, session: Session
) -> None:
    await store.heartbeat(session.id)
    await store.renew(session.id)

    assert (await store.get(session.id)).stored.revision == b"1"
