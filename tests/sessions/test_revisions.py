"""Changing a session over a revision that the caller names: whoever comes second is told so, and changes nothing."""

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
from tests.conftest import store_on
from tests.interruption import Interrupted
from tests.sessions.evidence import KEYS, contents, fields_of

MINUTE_MS = 60_000
NEVER_USED = "ab90c3cc-0d44-4b50-8888-8dd25736052a"

FIRST: Revisions = frozenset([b"1"])
SECOND: Revisions = frozenset([b"2"])
ANY_BUT_THOSE: Revisions = frozenset()

Change = dict[str, Any]
Verb = Callable[[SessionStore, str, Change, Revisions], Awaitable[Session]]

VERBS: dict[str, tuple[Verb, Change]] = {
    "configure": (SessionStore.update_timeout, {"timeout_minutes": 60}),
    "annotate": (SessionStore.update_metadata, {"channel": "phone"}),
}

either = pytest.mark.parametrize(("verb", "change"), VERBS.values(), ids=VERBS)


@either
async def test_at_the_revision_it_is_changed(store: SessionStore, session: Session, verb: Verb, change: Change) -> None:
    changed = await verb(store, session.id, change, FIRST)

    assert changed.stored.revision == b"2"


@either
async def test_at_another_it_is_not(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb, change: Change
) -> None:
    before = await contents(real_redis)

    with pytest.raises(PreconditionFailed) as refusal:
        await verb(store, session.id, change, SECOND)

    assert refusal.value.facts == {"sessionId": session.id, "etag": '"1"'}
    assert await contents(real_redis) == before


@either
async def test_one_of_several_is_enough(store: SessionStore, session: Session, verb: Verb, change: Change) -> None:
    assert await attempt(verb, store, session.id, change, SECOND | FIRST) == "live"


@either
async def test_one_that_none_can_match_is_not_changed(
    store: SessionStore, session: Session, verb: Verb, change: Change
) -> None:
    assert await attempt(verb, store, session.id, change, ANY_BUT_THOSE) == "other_revision"


@either
@pytest.mark.parametrize("revision", [b"2", b"1", b"122", b"212"])
async def test_a_part_of_the_revision_is_another(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb, change: Change, revision: bytes
) -> None:
    await real_redis.hset(KEYS.session(session.id), "revision", 12)

    assert await attempt(verb, store, session.id, change, frozenset([revision])) == "other_revision"


@either
async def test_of_twenty_at_one_revision_one_wins(
    redis_client: RedisClient, settings: Settings, session: Session, real_redis: Redis, verb: Verb, change: Change
) -> None:
    stores = [store_on(redis_client, settings) for _ in range(2)] * 10

    answers = await asyncio.gather(*(attempt(verb, store, session.id, change, FIRST) for store in stores))

    assert Counter(answers) == {"live": 1, "other_revision": 19}
    assert (await fields_of(real_redis, session))["revision"] == "2"


@either
async def test_one_that_has_ended_is_expired_at_any_revision(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb, change: Change
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)

    assert await attempt(verb, store, session.id, change, SECOND) == "expired"


@either
async def test_one_that_is_unknown_is_so_at_any_revision(store: SessionStore, verb: Verb, change: Change) -> None:
    assert await attempt(verb, store, NEVER_USED, change, SECOND) == "missing"


async def test_a_change_that_would_end_it_is_told_of_the_revision_first(
    store: SessionStore, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 20 * MINUTE_MS)

    assert await attempt(store.update_timeout, session.id, {"timeout_minutes": 15}, SECOND) == "other_revision"
    assert await attempt(store.update_timeout, session.id, {"timeout_minutes": 15}, FIRST) == "in_the_past"


async def test_a_patch_is_not_merged_anew_over_a_change_that_came_between(
    redis_client: RedisClient, settings: Settings, session: Session, real_redis: Redis
) -> None:
    other = store_on(redis_client, settings)
    between = Interrupted(
        redis_client, "update_metadata", before=lambda: other.update_metadata(session.id, {"channel": "pigeon"})
    )

    answer = await attempt(store_on(between, settings).update_metadata, session.id, {"channel": "phone"}, FIRST)

    assert answer == "other_revision"
    assert (await fields_of(real_redis, session))["metadata"] == '{"channel":"pigeon"}'


async def test_where_the_revision_of_that_change_is_named_too_it_is_merged_anew(
    redis_client: RedisClient, settings: Settings, session: Session
) -> None:
    other = store_on(redis_client, settings)
    between = Interrupted(
        redis_client, "update_metadata", before=lambda: other.update_metadata(session.id, {"topic": "weather"})
    )

    changed = await store_on(between, settings).update_metadata(session.id, {"channel": "phone"}, FIRST | SECOND)

    assert changed.metadata == b'{"channel":"phone","topic":"weather"}'
    assert changed.stored.revision == b"3"


async def test_only_the_two_changes_are_revisions(store: SessionStore, session: Session) -> None:
    await store.heartbeat(session.id)
    await store.renew(session.id)

    assert (await store.get(session.id)).stored.revision == b"1"
