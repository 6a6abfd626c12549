"""Every verb on a session that is not live: expired until the retention ends, then missing."""

from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from service.errors import SessionExpired, SessionNotFound
from service.sessions.session import Session
from service.sessions.store import SessionStore
from service.settings.sessions import TimeoutConfig
from service.timestamps import iso
from tests.aging import age
from tests.attempt import attempt
from tests.conftest import create_session
from tests.redis_contents import KEYS, command_counts, contents

MINUTE_MS = 60_000
RETENTION_MS = 1440 * MINUTE_MS
UNKNOWN_ID = "ab90c3cc-0d44-4b50-8888-8dd25736052a"

Verb = Callable[[SessionStore, str], Awaitable[Session | None]]

VERBS: dict[str, Verb] = {
    "get": SessionStore.get,
    "heartbeat": SessionStore.heartbeat,
    "renew": SessionStore.renew,
    "update_timeout": lambda store, session_id: store.update_timeout(session_id, {"timeout_minutes": 60}),
    "update_metadata": lambda store, session_id: store.update_metadata(session_id, {"channel": "phone"}),
    "delete": SessionStore.delete,
}

pytestmark = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


async def test_a_verb_succeeds_on_a_live_session(store: SessionStore, session: Session, verb: Verb) -> None:
    assert await attempt(verb, store, session.id) in {"live", "deleted"}


async def test_a_verb_succeeds_in_the_last_minute_of_a_session(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await store.update_timeout(session.id, {"timeout_minutes": 60})
    await age(real_redis, session.id, 59 * MINUTE_MS)

    assert await attempt(verb, store, session.id) in {"live", "deleted"}


async def test_a_session_without_activity_expires_for_inactivity(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)

    with pytest.raises(SessionExpired) as caught:
        await verb(store, session.id)

    assert caught.value.facts == {
        "sessionId": session.id,
        "expiresAt": iso(session.created_at_ms),
        "reason": "inactivity",
    }


async def test_a_session_at_its_maximum_duration_expires_for_max_duration(
    store: SessionStore, real_redis: Redis, verb: Verb
) -> None:
    session = await create_session(store, config=TimeoutConfig(60, True, 45, 5)._asdict())
    await age(real_redis, session.id, 45 * MINUTE_MS)

    with pytest.raises(SessionExpired) as caught:
        await verb(store, session.id)

    assert caught.value.facts == {
        "sessionId": session.id,
        "expiresAt": iso(session.created_at_ms),
        "reason": "max_duration",
    }


async def test_an_expired_session_is_reported_every_time(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)

    outcomes = [await attempt(verb, store, session.id), await attempt(verb, store, session.id)]

    assert outcomes == ["expired", "expired"]


async def test_a_verb_on_an_expired_session_changes_nothing(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)
    before = await contents(real_redis)

    assert await attempt(verb, store, session.id) == "expired"

    assert await contents(real_redis) == before


async def test_a_session_is_expired_until_its_retention_ends(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS + RETENTION_MS - MINUTE_MS)

    assert await attempt(verb, store, session.id) == "expired"


async def test_a_session_is_missing_after_its_retention(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS + RETENTION_MS)

    assert await attempt(verb, store, session.id) == "missing"


async def test_a_hash_with_a_longer_ttl_is_expired(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await real_redis.expire(KEYS.session(session.id), 60 * 60)
    await age(real_redis, session.id, 30 * MINUTE_MS)

    assert await real_redis.exists(KEYS.session(session.id))
    assert await attempt(verb, store, session.id) == "expired"


async def test_a_persisted_hash_is_expired(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await real_redis.persist(KEYS.session(session.id))
    await real_redis.hincrby(KEYS.session(session.id), "expiresAt", -30 * MINUTE_MS)
    await age(real_redis, session.id, 30 * MINUTE_MS)

    assert await attempt(verb, store, session.id) == "expired"

    await real_redis.delete(KEYS.session(session.id))


async def test_a_session_with_a_deleted_hash_is_missing(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await real_redis.delete(KEYS.session(session.id))

    assert await attempt(verb, store, session.id) == "missing"


async def test_a_session_with_a_hash_deleted_ten_seconds_early_is_missing(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS - 10_000)
    await real_redis.delete(KEYS.session(session.id))

    assert await attempt(verb, store, session.id) == "missing"


async def test_a_session_with_a_hash_deleted_five_seconds_early_is_expired(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS - 5_000)
    await real_redis.delete(KEYS.session(session.id))

    assert await attempt(verb, store, session.id) == "expired"


async def test_an_unused_id_is_missing(store: SessionStore, verb: Verb) -> None:
    with pytest.raises(SessionNotFound) as caught:
        await verb(store, UNKNOWN_ID)

    assert caught.value.facts == {"sessionId": UNKNOWN_ID}


async def test_a_verb_on_an_unknown_session_changes_nothing(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    before = await contents(real_redis)

    assert await attempt(verb, store, UNKNOWN_ID) == "missing"

    assert await contents(real_redis) == before


async def test_an_id_that_the_service_never_issues_is_not_looked_up_in_redis(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    before = await command_counts(real_redis)

    assert await attempt(verb, store, f"{session.id}:tombstone") == "missing"

    assert await command_counts(real_redis) == before


async def test_a_verb_works_after_a_script_flush(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await real_redis.script_flush()

    assert await attempt(verb, store, session.id) in {"live", "deleted"}
