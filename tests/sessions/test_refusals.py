"""What every verb answers of a session that is not alive: 410 for one that ended, 404 for what is not known."""

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
from tests.sessions.evidence import KEYS, commands_seen, contents

MINUTE_MS = 60_000
RETENTION_MS = 1440 * MINUTE_MS
NEVER_USED = "ab90c3cc-0d44-4b50-8888-8dd25736052a"

Verb = Callable[[SessionStore, str], Awaitable[Session | None]]

VERBS: dict[str, Verb] = {
    "get": SessionStore.get,
    "touch": SessionStore.heartbeat,
    "renew": SessionStore.renew,
    "configure": lambda store, session_id: store.update_timeout(session_id, {"timeout_minutes": 60}),
    "annotate": lambda store, session_id: store.update_metadata(session_id, {"channel": "phone"}),
    "delete": SessionStore.delete,
}

pytestmark = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


async def test_a_live_session_is_refused_nothing(store: SessionStore, session: Session, verb: Verb) -> None:
    assert await attempt(verb, store, session.id) in {"live", "deleted"}


async def test_one_in_its_last_minute_is_refused_nothing(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await store.update_timeout(session.id, {"timeout_minutes": 60})
    await age(real_redis, session.id, 59 * MINUTE_MS)

    assert await attempt(verb, store, session.id) in {"live", "deleted"}


async def test_one_that_ended_for_want_of_activity_is_expired(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)

    with pytest.raises(SessionExpired) as refusal:
        await verb(store, session.id)

    assert refusal.value.facts == {
        "sessionId": session.id,
        "expiresAt": iso(session.created_at_ms),
        "reason": "inactivity",
    }


async def test_one_that_ended_at_its_maximum_duration_is_expired(
    store: SessionStore, real_redis: Redis, verb: Verb
) -> None:
    session = await create_session(store, config=TimeoutConfig(60, True, 45, 5)._asdict())
    await age(real_redis, session.id, 45 * MINUTE_MS)

    with pytest.raises(SessionExpired) as refusal:
        await verb(store, session.id)

    assert refusal.value.facts == {
        "sessionId": session.id,
        "expiresAt": iso(session.created_at_ms),
        "reason": "max_duration",
    }


async def test_an_expired_session_is_expired_every_time_it_is_asked_for(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)

    answers = [await attempt(verb, store, session.id), await attempt(verb, store, session.id)]

    assert answers == ["expired", "expired"]


async def test_asking_for_an_expired_session_changes_nothing(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)
    before = await contents(real_redis)

    assert await attempt(verb, store, session.id) == "expired"

    assert await contents(real_redis) == before


async def test_it_is_expired_until_the_retention_ends(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS + RETENTION_MS - MINUTE_MS)

    assert await attempt(verb, store, session.id) == "expired"


async def test_it_is_unknown_when_the_retention_has_ended(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS + RETENTION_MS)

    assert await attempt(verb, store, session.id) == "missing"


async def test_one_whose_hash_outlives_its_end_is_expired(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await real_redis.expire(KEYS.session(session.id), 60 * 60)
    await age(real_redis, session.id, 30 * MINUTE_MS)

    assert await real_redis.exists(KEYS.session(session.id))
    assert await attempt(verb, store, session.id) == "expired"


async def test_one_whose_hash_was_persisted_is_expired(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await real_redis.persist(KEYS.session(session.id))
    await real_redis.hincrby(KEYS.session(session.id), "expiresAt", -30 * MINUTE_MS)
    await age(real_redis, session.id, 30 * MINUTE_MS)

    assert await attempt(verb, store, session.id) == "expired"

    await real_redis.delete(KEYS.session(session.id))


async def test_one_whose_hash_was_removed_long_before_its_end_is_unknown(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await real_redis.delete(KEYS.session(session.id))

    assert await attempt(verb, store, session.id) == "missing"


async def test_one_whose_hash_was_removed_ten_seconds_before_its_end_is_unknown(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS - 10_000)
    await real_redis.delete(KEYS.session(session.id))

    assert await attempt(verb, store, session.id) == "missing"


async def test_one_whose_hash_is_gone_five_seconds_before_its_end_is_expired(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS - 5_000)
    await real_redis.delete(KEYS.session(session.id))

    assert await attempt(verb, store, session.id) == "expired"


async def test_an_id_that_was_never_used_is_unknown(store: SessionStore, verb: Verb) -> None:
    with pytest.raises(SessionNotFound) as refusal:
        await verb(store, NEVER_USED)

    assert refusal.value.facts == {"sessionId": NEVER_USED}


async def test_asking_for_an_unknown_session_changes_nothing(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    before = await contents(real_redis)

    assert await attempt(verb, store, NEVER_USED) == "missing"

    assert await contents(real_redis) == before


async def test_redis_is_not_asked_for_an_id_that_was_never_issued(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    before = await commands_seen(real_redis)

    assert await attempt(verb, store, f"{session.id}:tombstone") == "missing"

    assert await commands_seen(real_redis) == before


async def test_every_verb_works_after_redis_forgot_the_scripts(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await real_redis.script_flush()

    assert await attempt(verb, store, session.id) in {"live", "deleted"}
