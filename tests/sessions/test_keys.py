"""The data model in the docstring of service/sessions/keys.py matches the keys that the service writes."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple

import pytest
from redis.asyncio import Redis

from service.rate_limit.buckets import Buckets, Limit, RateLimitStatus
from service.redis_client.client import RedisClient
from service.sessions import keys
from service.sessions.idempotency import IdempotencyKey
from service.sessions.keys import SHARDS, Keys
from service.sessions.scripts import MARK_LOST
from service.sessions.session import NewSession, Session
from service.sessions.store import SessionStore
from service.settings import Settings
from service.settings.rate_limits import Rate
from tests.aging import age
from tests.conftest import AGENT, USER, new_policies
from tests.redis_contents import keys_in

_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"

MINUTE_MS = 60_000
DIGEST = "ab" * 32
AN_ID = "ab90c3cc-0d44-4b50-8888-8dd25736052a"

SESSION_KEYS = {
    "session:{ab}:<id>",
    "session:{ab}:<id>:tombstone",
    "sessions:{ab}:expiry",
    "sessions:{ab}:warning",
    "sessions:{ab}:created",
    "sessions:user:{<userId>}",
    "sessions:agent:{<agentId>}",
}

ENDS_KEYS = {"sessions:user:{<userId>}:ends", "sessions:agent:{<agentId>}:ends"}
ACTIVITY_KEYS = {"sessions:user:{<userId>}:activity", "sessions:agent:{<agentId>}:activity"}
DENYING = Settings(session_max_per_user=2, session_max_per_agent=2)
EVICTING = Settings(session_max_per_user=2, session_max_per_agent=2, session_cap_policy="evict")

Verb = Callable[[SessionStore, str], Awaitable[Session | None]]


class Row(NamedTuple):
    """A row of the table: a kind of key. Only hashes have `fields`."""

    name: str
    type: str
    fields: frozenset[str]
    has_ttl: bool


def documented() -> dict[str, Row]:
    """The rows of the table, by key."""
    cells = re.findall(r"^\| `(.+?)` \| (\w+) \| (.+?) \| (.+?) \|$", keys.__doc__ or "", re.MULTILINE)
    return {
        name: Row(
            name, type_, frozenset(fields.split() if type_ == "hash" else ()), not lifetime.startswith("permanent")
        )
        for name, type_, fields, lifetime in cells
    }


async def found_in(redis: Redis) -> dict[str, Row]:
    """The kinds of keys in Redis, as rows of the table."""
    rows = [await _row_of(redis, key) for key in await keys_in(redis)]
    return {row.name: row for row in rows}


async def _row_of(redis: Redis, key: str) -> Row:
    type_ = _text(await redis.type(key))
    fields = [_text(field) for field in await redis.hkeys(key)] if type_ == "hash" else []
    return Row(_name_of(key), type_, frozenset(fields), await redis.pttl(key) > 0)


def _text(reply: Any) -> str:
    return str(reply, "ascii")


def _name_of(key: str) -> str:
    (name,) = [name for name in documented() if re.fullmatch(_pattern_of(name), key)]
    return name


def _pattern_of(name: str) -> str:
    """Convert a name of the table to a regular expression: `ab` is any shard, `<id>` and similar names are any UUID."""
    pattern = re.escape(name).replace("{ab", "{[0-9a-f]{2}")
    pattern = pattern.replace("<address>", "[0-9a-f.:/]+").replace("<caller>", "(key|token):[^{}]+")
    pattern = pattern.replace("<digest>", "[0-9a-f]{64}")
    return re.sub(r"<\w+>", _UUID, pattern)


def rows_of(names: set[str]) -> dict[str, Row]:
    return {name: row for name, row in documented().items() if name in names}


def test_the_table_has_the_main_kinds_of_keys() -> None:
    assert set(documented()) >= SESSION_KEYS | {
        "sessions:agent:{<agentId>}:policy",
        "sessions:layout",
        "sessions:secret",
    }


async def test_a_creation_writes_the_documented_keys(session: Session, real_redis: Redis) -> None:
    assert await found_in(real_redis) == rows_of(SESSION_KEYS)


async def test_a_creation_with_an_idempotency_key_also_writes_a_record(store: SessionStore, real_redis: Redis) -> None:
    await store.create(NewSession(AGENT, USER, {}, b"{}"), IdempotencyKey("web", "a key"))

    assert await found_in(real_redis) == rows_of(SESSION_KEYS | {"session:{ab}:idempotency:<digest>"})


@pytest.mark.parametrize(
    "verb",
    [
        SessionStore.get,
        SessionStore.heartbeat,
        SessionStore.renew,
        lambda store, session_id: store.update_timeout(session_id, {"auto_renew": False}),
        lambda store, session_id: store.update_metadata(session_id, {"channel": "phone"}),
    ],
    ids=["get", "heartbeat", "renew", "update_timeout", "update_metadata"],
)
async def test_a_verb_writes_the_documented_keys(
    store: SessionStore, session: Session, real_redis: Redis, verb: Verb
) -> None:
    await verb(store, session.id)

    assert await found_in(real_redis) == rows_of(SESSION_KEYS)


async def test_a_policy_writes_the_documented_key(
    redis_client: RedisClient, settings: Settings, real_redis: Redis
) -> None:
    policy = {"timeout_minutes": 60, "auto_renew": True, "max_duration_minutes": 120, "warning_threshold_minutes": 5}

    await new_policies(redis_client, settings).put(AGENT, policy)

    assert await found_in(real_redis) == rows_of({"sessions:agent:{<agentId>}:policy"})


@pytest.mark.parametrize(("subject_kind", "subject"), [("address", "2001:db8::/64"), ("caller", "key:web")])
async def test_a_rate_limit_writes_the_documented_keys(
    redis_client: RedisClient, real_redis: Redis, subject_kind: Literal["address", "caller"], subject: str
) -> None:
    buckets, limit = Buckets(redis_client), Limit(subject_kind, Rate(2, 60))

    await buckets.take(Keys("").requests(subject_kind, subject), limit, None, RateLimitStatus())
    await buckets.take(Keys("").failed_lookups(subject_kind, subject), limit, None, RateLimitStatus())

    names = {
        f"sessions:{subject_kind}:{{<{subject_kind}>}}:requests",
        f"sessions:{subject_kind}:{{<{subject_kind}>}}:guesses",
    }
    assert await found_in(real_redis) == rows_of(names)


async def test_a_deletion_removes_all_keys(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await store.delete(session.id)

    assert await found_in(real_redis) == {}


@pytest.mark.parametrize("settings", [EVICTING])
async def test_a_creation_with_evicting_caps_writes_the_documented_keys(session: Session, real_redis: Redis) -> None:
    assert await found_in(real_redis) == rows_of(SESSION_KEYS | ENDS_KEYS | ACTIVITY_KEYS)


@pytest.mark.parametrize("settings", [DENYING])
async def test_a_creation_with_denying_caps_writes_the_documented_keys(session: Session, real_redis: Redis) -> None:
    assert await found_in(real_redis) == rows_of(SESSION_KEYS | ENDS_KEYS)


@pytest.mark.parametrize("settings", [DENYING, EVICTING])
async def test_a_deletion_with_caps_removes_all_keys(store: SessionStore, session: Session, real_redis: Redis) -> None:
    await store.delete(session.id)

    assert await found_in(real_redis) == {}


@pytest.mark.parametrize("settings", [EVICTING])
async def test_the_sets_for_caps_expire_with_their_owner_index(session: Session, real_redis: Redis) -> None:
    user_keys, agent_keys = (
        Keys("").capped_index(owner_index) for owner_index in Keys("").owner_indexes(AGENT, USER)[::-1]
    )

    assert len({await real_redis.pexpiretime(key) for key in user_keys}) == 1
    assert len({await real_redis.pexpiretime(key) for key in agent_keys}) == 1


async def test_an_expired_session_leaves_all_keys_but_its_hash(session: Session, real_redis: Redis) -> None:
    await age(real_redis, session.id, 30 * MINUTE_MS)

    assert await found_in(real_redis) == rows_of(SESSION_KEYS - {"session:{ab}:<id>"})


async def test_a_lost_session_has_lost_at_in_its_tombstone(
    redis_client: RedisClient, session: Session, real_redis: Redis
) -> None:
    key = Keys("").of(session.id)
    await real_redis.delete(key.session)

    await redis_client.execute(MARK_LOST.command(key, id=session.id))

    tombstone = (await found_in(real_redis))["session:{ab}:<id>:tombstone"]
    assert tombstone.fields - documented()["session:{ab}:<id>:tombstone"].fields == {"lostAt"}
    assert "lostAt" in (keys.__doc__ or "")


def test_the_schema_version_is_1() -> None:
    assert keys.SCHEMA_VERSION == "1"


def test_every_key_starts_with_the_prefix() -> None:
    plain, prefixed = Keys(""), Keys("staging:")

    assert prefixed.of(AN_ID) == tuple(f"staging:{key}" for key in plain.of(AN_ID))
    assert prefixed.user(USER) == f"staging:{plain.user(USER)}"
    assert prefixed.agent(AGENT) == f"staging:{plain.agent(AGENT)}"
    assert prefixed.policy(AGENT) == f"staging:{plain.policy(AGENT)}"
    assert prefixed.requests("address", "::/64") == tuple(
        f"staging:{key}" for key in plain.requests("address", "::/64")
    )
    assert prefixed.failed_lookups("caller", "key:web") == tuple(
        f"staging:{key}" for key in plain.failed_lookups("caller", "key:web")
    )
    assert prefixed.with_record(AN_ID, DIGEST) == tuple(f"staging:{key}" for key in plain.with_record(AN_ID, DIGEST))
    assert prefixed.layout == f"staging:{plain.layout}"


def test_single_keys_equal_those_of_the_session() -> None:
    alone = Keys("")

    assert alone.session(AN_ID) == alone.of(AN_ID).session
    assert alone.tombstone(AN_ID) == alone.of(AN_ID).tombstone
    assert alone.expiry("ab") == alone.of(AN_ID).expiry
    assert alone.warning("ab") == alone.of(AN_ID).warning
    assert alone.created("ab") == alone.of(AN_ID).created


def test_there_is_a_shard_for_every_pair_of_hex_digits() -> None:
    assert len(set(SHARDS)) == 256
    assert (SHARDS[0], SHARDS[0xAB], SHARDS[255]) == ("00", "ab", "ff")
