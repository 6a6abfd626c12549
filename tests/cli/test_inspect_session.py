"""`inspect ID` shows the state of one session, its hashes and its index entries."""

import re

import pytest
from redis.asyncio import Redis

from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.sessions.revocation import BulkRevocation, OwnerFilter
from service.sessions.session import Session
from service.sessions.store import SessionStore
from tests.aging import age
from tests.cli.operator import MINUTE_MS, TIMESTAMP, UNKNOWN, Operator, row
from tests.conftest import AGENT, USER, create_session, new_session_events
from tests.hashes import hashed_in
from tests.redis_contents import KEYS


async def test_every_field_is_shown(operator: Operator, session: Session) -> None:
    outcome = await operator.run(f"inspect {session.id}")

    assert outcome.code == 0
    assert outcome.lines[0] == session.id
    assert re.fullmatch(r"The session is active and expires in (30m|29m \d+s)\.", outcome.lines[1])
    assert row(outcome, "agentId") == AGENT
    assert row(outcome, "userId") == USER
    assert row(outcome, "timeoutMinutes") == "30"
    assert row(outcome, "autoRenew") == "true"
    assert row(outcome, "metadata") == '{"channel":"web"}'
    assert re.fullmatch(rf"{TIMESTAMP} \(\d+(ms|s) ago\)", row(outcome, "createdAt"))
    assert re.fullmatch(rf"{TIMESTAMP} \(in 29m \d+s\)", row(outcome, "expiresAt"))
    assert row(outcome, "reason") == "inactivity"


async def test_the_hash_of_its_id_in_logs_is_shown(operator: Operator, session: Session, real_redis: Redis) -> None:
    await real_redis.set(KEYS.secret, "0f" * 32)

    outcome = await operator.run(f"inspect {session.id}")
    document = (await operator.run(f"inspect {session.id} --json")).document

    hashed = await hashed_in(real_redis, session.id)
    assert (outcome.lines[2], document["logHash"]) == (f"Its hash in logs is {hashed}.", hashed)


async def test_ttls_and_index_entries_are_shown(operator: Operator, session: Session) -> None:
    document = (await operator.run(f"inspect {session.id} --json")).document

    assert 29 * MINUTE_MS < document["session"]["ttlMs"] <= 30 * MINUTE_MS
    assert 1469 * MINUTE_MS < document["tombstone"]["ttlMs"] <= 1470 * MINUTE_MS
    assert document["session"]["fields"]["metadata"] == {"channel": "web"}
    assert {name: entry["key"] for name, entry in document["indexes"].items()} == {
        "expiry": KEYS.expiry(session.id[:2]),
        "warning": KEYS.warning(session.id[:2]),
        "created": KEYS.created(session.id[:2]),
        "user": KEYS.user(USER),
        "agent": KEYS.agent(AGENT),
    }
    assert document["indexes"]["expiry"]["listedAt"] == document["session"]["fields"]["expiresAt"]


async def test_a_missing_index_entry_is_shown(operator: Operator, session: Session, real_redis: Redis) -> None:
    await real_redis.zrem(KEYS.user(USER), session.id)

    outcome = await operator.run(f"inspect {session.id}")

    assert row(outcome, "user  ") == f"missing in {KEYS.user(USER)}"
    assert re.match(TIMESTAMP, row(outcome, "agent  "))


async def test_a_missing_ttl_is_shown(operator: Operator, session: Session, real_redis: Redis) -> None:
    await real_redis.persist(KEYS.session(session.id))

    outcome = await operator.run(f"inspect {session.id}")
    await real_redis.delete(KEYS.session(session.id))

    assert row(outcome, "TTL") == "none: the key never expires"


async def test_a_session_without_some_fields_is_shown(operator: Operator, session: Session, real_redis: Redis) -> None:
    await real_redis.hdel(KEYS.session(session.id), "metadata", "renewalCount")

    outcome = await operator.run(f"inspect {session.id}")

    assert outcome.code == 0
    assert row(outcome, "agentId") == AGENT


async def test_control_characters_and_markup_of_clients_are_not_interpreted(
    operator: Operator, store: SessionStore, real_redis: Redis
) -> None:
    session = await create_session(store, metadata='{"a":"\u009b31m[bold]"}'.encode())
    await real_redis.hset(KEYS.session(session.id), "by\x1b[2Jhand", "\x1b]0;title\x07")

    outcome = await operator.run(f"inspect {session.id}")
    in_json = await operator.run(f"inspect {session.id} --json")

    assert row(outcome, "metadata") == '{"a":"\N{REPLACEMENT CHARACTER}31m[bold]"}'
    assert in_json.document["session"]["fields"]["metadata"] == {"a": "\u009b31m[bold]"}
    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", outcome.out + in_json.out) == []


# States


async def test_an_expired_session_is_shown_with_its_reason(
    operator: Operator, session: Session, real_redis: Redis
) -> None:
    await age(real_redis, session.id, 31 * MINUTE_MS)

    outcome = await operator.run(f"inspect {session.id}")

    assert outcome.code == 0
    assert re.fullmatch(rf"The session expired at {TIMESTAMP} because of inactivity\.", outcome.lines[1])
    assert row(outcome, "TTL") == "no such key"
    assert row(outcome, "userId") == USER


async def test_a_lost_session_is_shown_as_lost(operator: Operator, session: Session, real_redis: Redis) -> None:
    await real_redis.delete(KEYS.session(session.id))

    outcome = await operator.run(f"inspect {session.id}")

    assert (outcome.code, outcome.lines[1].partition(":")[0]) == (0, "The session is lost")


async def test_a_revocation_marker_is_shown_as_such(
    operator: Operator, redis_client: RedisClient, real_redis: Redis
) -> None:
    await real_redis.zadd(KEYS.user(USER), {UNKNOWN: 1})
    await real_redis.pexpire(KEYS.user(USER), MINUTE_MS)
    await BulkRevocation(redis_client, KEYS, new_session_events(Metrics())).revoke(OwnerFilter(None, USER))

    outcome = await operator.run(f"inspect {UNKNOWN}")

    assert (outcome.code, outcome.lines[1].partition(":")[0]) == (0, "This is a revocation marker")
    assert re.fullmatch(rf"{TIMESTAMP} \(\d+(ms|s) ago\)", row(outcome, "revokedAt"))


@pytest.mark.parametrize("session_id", [UNKNOWN, "never-issued"])
async def test_an_unknown_id_is_a_failure(operator: Operator, real_redis: Redis, session_id: str) -> None:
    outcome = await operator.run(f"inspect {session_id}")
    document = (await operator.run(f"inspect {session_id} --json")).document

    assert (outcome.code, outcome.lines[1].partition(":")[0]) == (1, "The session is unknown")
    assert (document["state"], document["session"], document["tombstone"]) == ("unknown", None, None)


@pytest.mark.parametrize("field", ["expiresAt", "createdAt", "timeoutMinutes"])
async def test_an_unreadable_session_is_shown(
    operator: Operator, session: Session, real_redis: Redis, field: str
) -> None:
    await real_redis.hset(KEYS.session(session.id), field, "abc")

    outcome = await operator.run(f"inspect {session.id}")

    assert outcome.lines[1].startswith("The session is unreadable")
    assert row(outcome, field) == "abc"


async def test_a_session_of_a_wrong_type_is_shown(operator: Operator, session: Session, real_redis: Redis) -> None:
    await real_redis.set(KEYS.session(session.id), "a string", px=MINUTE_MS)

    outcome = await operator.run(f"inspect {session.id}")

    assert (outcome.code, outcome.lines[1].partition(":")[0]) == (0, "The session is unreadable")


async def test_an_unreadable_session_is_revoked(operator: Operator, session: Session, real_redis: Redis) -> None:
    await real_redis.set(KEYS.session(session.id), "a string", px=MINUTE_MS)

    outcome = await operator.run(f"revoke {session.id} --yes")

    assert outcome.code == 0
    assert await real_redis.exists(KEYS.session(session.id)) == 0
