"""The rules of the Lua scripts at exact times of the server's clock."""

from hashlib import sha1
from typing import Any

import pytest
from redis.asyncio import Redis

from service.redis_client.scripts import Argument, Script
from service.sessions import scripts
from service.sessions.keys import Keys
from service.sessions.scripts import (
    CREATE,
    DELETE,
    EVICT,
    EXPIRED,
    HEARTBEAT,
    MARK_LOST,
    RENEW,
    REVOKE,
    STATUS,
    SWEEP,
    UPDATE_METADATA,
    UPDATE_TIMEOUT,
)
from tests.conftest import AGENT, USER

MINUTE_MS = 60_000
AN_ID = "ab90c3cc-0d44-4b50-8888-8dd25736052a"
CREATED_AT_MS = 4_102_444_800_000
EXPIRES_AT_MS = CREATED_AT_MS + 30 * MINUTE_MS
ARGUMENTS: dict[str, Argument] = {
    "id": AN_ID,
    "agent_id": AGENT,
    "user_id": USER,
    "metadata": "{}",
    "timeout_minutes": "30",
    "auto_renew": "true",
    "max_duration_minutes": "45",
    "warning_threshold_minutes": "5",
    "retention_ms": 60 * MINUTE_MS,
    "marker_lifetime_ms": 10 * MINUTE_MS,
    "revision": "1",
    "owner_id": USER,
    "last_activity": CREATED_AT_MS,
    "revisions": "",
}

each_script_of_a_live_session = pytest.mark.parametrize(
    "script", [HEARTBEAT, RENEW, UPDATE_TIMEOUT, UPDATE_METADATA, DELETE, REVOKE, EVICT], ids=lambda script: script.name
)
each_script_for_a_user = pytest.mark.parametrize(
    "script", [HEARTBEAT, RENEW, UPDATE_TIMEOUT, DELETE, STATUS], ids=lambda script: script.name
)


async def run_at(redis: Redis, now_ms: int, script: Script, **changes: Argument) -> list[Any]:
    """Run a script for the session AN_ID at a time of the server's clock, 999 microseconds later."""
    time = f"{{'{now_ms // 1000}', '{now_ms % 1000 * 1000 + 999}'}}"
    command = script.command(Keys("").of(AN_ID), **ARGUMENTS | changes)
    text = script.text.replace("redis.call('TIME')", time)
    reply: list[Any] = await redis.eval(text, len(script.keys), *map(str, command[3:]))
    return reply


@pytest.fixture
async def session_of_2100(redis: Redis) -> None:
    """A session that is created in 2100, with a timeout of 30 minutes and a maximum duration of 45."""
    await run_at(redis, CREATED_AT_MS, CREATE)


async def test_the_clock_has_milliseconds(redis: Redis) -> None:
    _, now_ms, values = await run_at(redis, CREATED_AT_MS + 7, CREATE)

    assert now_ms == CREATED_AT_MS + 7
    assert dict(zip(scripts.FIELDS, values, strict=True))[b"createdAt"] == str(CREATED_AT_MS + 7).encode()


@each_script_of_a_live_session
@pytest.mark.usefixtures("session_of_2100")
async def test_a_session_is_live_in_its_last_millisecond(script: Script, redis: Redis) -> None:
    reply = await run_at(redis, EXPIRES_AT_MS - 1, script)

    assert reply[0] in {b"live", b"deleted", b"revoked", b"evicted"}


@each_script_of_a_live_session
@pytest.mark.usefixtures("session_of_2100")
async def test_a_session_is_expired_at_its_expiry(script: Script, redis: Redis) -> None:
    assert await run_at(redis, EXPIRES_AT_MS, script) == [b"expired", str(EXPIRES_AT_MS).encode(), b"inactivity"]


@each_script_of_a_live_session
@pytest.mark.usefixtures("session_of_2100")
async def test_a_hash_that_disappeared_more_than_five_seconds_early_is_lost(script: Script, redis: Redis) -> None:
    await redis.delete(Keys("").session(AN_ID))

    assert await run_at(redis, EXPIRES_AT_MS - 5001, script) == [b"lost"]


@each_script_of_a_live_session
@pytest.mark.usefixtures("session_of_2100")
async def test_a_hash_that_disappeared_five_seconds_early_is_expired(script: Script, redis: Redis) -> None:
    await redis.delete(Keys("").session(AN_ID))

    assert await run_at(redis, EXPIRES_AT_MS - 5000, script) == [b"expired", str(EXPIRES_AT_MS).encode(), b"inactivity"]


@pytest.mark.usefixtures("session_of_2100")
async def test_a_session_is_marked_as_lost_once(redis: Redis) -> None:
    await redis.delete(Keys("").session(AN_ID))

    replies = [await run_at(redis, CREATED_AT_MS, MARK_LOST), await run_at(redis, EXPIRES_AT_MS - 5001, MARK_LOST)]

    assert replies == [[b"marked"], [b"already_marked"]]
    assert await redis.hget(Keys("").tombstone(AN_ID), "lostAt") == str(CREATED_AT_MS).encode()


@pytest.mark.usefixtures("session_of_2100")
async def test_a_session_that_disappeared_five_seconds_early_is_not_marked(redis: Redis) -> None:
    await redis.delete(Keys("").session(AN_ID))

    assert await run_at(redis, EXPIRES_AT_MS - 5000, MARK_LOST) == [
        b"expired",
        str(EXPIRES_AT_MS).encode(),
        b"inactivity",
    ]


@pytest.mark.usefixtures("session_of_2100")
async def test_a_live_session_is_not_marked_as_lost(redis: Redis) -> None:
    assert await run_at(redis, CREATED_AT_MS, MARK_LOST) == [b"live"]
    assert await redis.hget(Keys("").tombstone(AN_ID), "lostAt") is None


@pytest.mark.usefixtures("session_of_2100")
async def test_an_expired_session_is_found_from_its_expiry_on(redis: Redis) -> None:
    replies = [
        await run_at(redis, EXPIRES_AT_MS - 1, EXPIRED, limit=9),
        await run_at(redis, EXPIRES_AT_MS, EXPIRED, limit=9),
    ]

    entry = [AN_ID.encode(), str(EXPIRES_AT_MS).encode()]
    assert replies == [[b"found", EXPIRES_AT_MS - 1, []], [b"found", EXPIRES_AT_MS, entry]]


@pytest.mark.usefixtures("session_of_2100")
@pytest.mark.parametrize(
    ("now_ms", "status"),
    [(CREATED_AT_MS, b"lost"), (EXPIRES_AT_MS - 5001, b"lost"), (EXPIRES_AT_MS - 5000, b"expired")],
)
async def test_the_status_of_a_session_without_a_hash_follows_from_its_tombstone(
    redis: Redis, now_ms: int, status: bytes
) -> None:
    await redis.delete(Keys("").session(AN_ID))

    assert (await run_at(redis, now_ms, STATUS))[0] == status


@pytest.mark.usefixtures("session_of_2100")
async def test_the_status_of_a_session_is_live_until_its_expiry(redis: Redis) -> None:
    replies = [await run_at(redis, EXPIRES_AT_MS - 1, STATUS), await run_at(redis, EXPIRES_AT_MS, STATUS)]

    assert replies[0][0] == b"live"
    assert replies[1] == [b"expired", str(EXPIRES_AT_MS).encode(), b"inactivity"]


@each_script_for_a_user
@pytest.mark.usefixtures("session_of_2100")
async def test_a_script_reports_a_live_session_of_another_user_as_missing(script: Script, redis: Redis) -> None:
    assert await run_at(redis, CREATED_AT_MS, script, owner_id="another") == [b"missing"]


@each_script_for_a_user
@pytest.mark.usefixtures("session_of_2100")
async def test_a_script_reports_an_expired_session_of_another_user_as_missing(script: Script, redis: Redis) -> None:
    assert await run_at(redis, EXPIRES_AT_MS, script, owner_id="another") == [b"missing"]


@each_script_for_a_user
@pytest.mark.usefixtures("session_of_2100")
async def test_a_script_recognizes_the_owner_of_a_swept_session(script: Script, redis: Redis) -> None:
    await run_at(redis, EXPIRES_AT_MS, SWEEP)

    assert (await run_at(redis, EXPIRES_AT_MS, script, owner_id=USER))[0] == b"expired"
    assert await run_at(redis, EXPIRES_AT_MS, script, owner_id="another") == [b"missing"]
    assert (await run_at(redis, EXPIRES_AT_MS, script, owner_id=""))[0] == b"expired"


@each_script_for_a_user
@pytest.mark.usefixtures("session_of_2100")
async def test_a_script_finds_no_owner_in_a_tombstone_that_an_earlier_release_swept(
    script: Script, redis: Redis
) -> None:
    await run_at(redis, EXPIRES_AT_MS, SWEEP)
    await redis.hdel(Keys("").tombstone(AN_ID), "ownerHash")

    assert await run_at(redis, EXPIRES_AT_MS, script, owner_id=USER) == [b"missing"]
    assert (await run_at(redis, EXPIRES_AT_MS, script, owner_id=""))[0] == b"expired"


@pytest.mark.usefixtures("session_of_2100")
async def test_a_swept_tombstone_does_not_contain_the_user(redis: Redis) -> None:
    await run_at(redis, EXPIRES_AT_MS, SWEEP)

    tombstone = await redis.hgetall(Keys("").tombstone(AN_ID))
    assert tombstone.keys() == {b"expiresAt", b"reason", b"ownerHash"}
    assert tombstone[b"ownerHash"] == sha1(f"{Keys('').tombstone(AN_ID)} {USER}".encode()).hexdigest()[:16].encode()


@pytest.mark.usefixtures("session_of_2100")
async def test_a_timeout_change_may_leave_one_millisecond(redis: Redis) -> None:
    reply = await run_at(redis, CREATED_AT_MS + 20 * MINUTE_MS - 1, UPDATE_TIMEOUT, timeout_minutes="20")

    assert reply[0] == b"live"


@pytest.mark.usefixtures("session_of_2100")
async def test_a_timeout_change_must_leave_time(redis: Redis) -> None:
    now_ms = CREATED_AT_MS + 20 * MINUTE_MS

    reply = await run_at(redis, now_ms, UPDATE_TIMEOUT, timeout_minutes="20")

    assert reply == [b"in_the_past", str(now_ms).encode()]


@pytest.mark.usefixtures("session_of_2100")
async def test_a_renewal_is_possible_one_millisecond_before_the_maximum(redis: Redis) -> None:
    await run_at(redis, CREATED_AT_MS + 15 * MINUTE_MS - 1, RENEW)

    assert (await run_at(redis, CREATED_AT_MS + 15 * MINUTE_MS, RENEW))[0] == b"live"


@pytest.mark.usefixtures("session_of_2100")
async def test_no_renewal_is_possible_at_the_maximum_duration(redis: Redis) -> None:
    await run_at(redis, CREATED_AT_MS + 15 * MINUTE_MS, RENEW)

    reply = await run_at(redis, CREATED_AT_MS + 15 * MINUTE_MS, RENEW)

    assert reply == [b"at_maximum", str(CREATED_AT_MS).encode(), b"45", str(CREATED_AT_MS + 45 * MINUTE_MS).encode()]
