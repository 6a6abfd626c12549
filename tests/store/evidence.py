"""What Redis holds, and what it was asked: the evidence for tests that something was, or was not, changed."""

from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis

from service.keys import Keys
from service.sessions import Session

KEYS = Keys("")


async def contents(redis: Redis) -> dict[str, tuple[bytes | None, int]]:
    """Every key, with its value as Redis dumps it and the instant of its end."""
    return {key: (await redis.dump(key), await redis.pexpiretime(key)) for key in await keys_in(redis)}


async def keys_in(redis: Redis) -> list[str]:
    return [_text(key) for key in await redis.keys()]


async def fields_of(redis: Redis, session: Session) -> dict[str, str]:
    return _texts(await redis.hgetall(KEYS.session(session.id)))


async def tombstone_of(redis: Redis, session: Session) -> dict[str, str]:
    return _texts(await redis.hgetall(KEYS.tombstone(session.id)))


async def scores_of(redis: Redis, session: Session) -> dict[str, float | None]:
    """Where a session stands in the three indexes of its shard."""
    keys = KEYS.of(session.id)
    return {
        "expiry": await redis.zscore(keys.expiry, session.id),
        "warning": await redis.zscore(keys.warning, session.id),
        "created": await redis.zscore(keys.created, session.id),
    }


async def ends_of(redis: Redis, session: Session) -> dict[str, int]:
    """When the two keys of a session die."""
    keys = KEYS.of(session.id)
    return {"session": await redis.pexpiretime(keys.session), "tombstone": await redis.pexpiretime(keys.tombstone)}


async def listed_at(redis: Redis, lookup: str, session: Session) -> int:
    """The time at which a lookup knows a session to have been created."""
    time_ms = await redis.zscore(lookup, session.id)
    assert time_ms is not None
    return int(time_ms)


async def commands_seen(redis: Redis) -> dict[str, int]:
    """How often Redis was asked each command, apart from this question and the greetings of new connections."""
    statistics = await redis.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): counts["calls"] for name, counts in statistics.items()}
    return {name: count for name, count in calls.items() if name.partition("|")[0] not in {"info", "config", "client"}}


def _texts(fields: Mapping[Any, Any]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in fields.items()}


def _text(reply: Any) -> str:
    return str(reply, "utf-8")
