"""What Redis holds, and what it was asked: the evidence for tests that something was, or was not, changed."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis, RedisCluster

from service.sessions.keys import Keys
from service.sessions.session import Session

KEYS = Keys("")

_GREETINGS = {"hello", "auth", "select", "client", "script", "command", "cluster"}
_AMONG_SERVERS = {"ping", "publish", "subscribe", "role", "replconf", "psync", "info", "config"}
_NOT_OURS = _GREETINGS | _AMONG_SERVERS


async def contents(redis: Redis) -> dict[str, tuple[bytes | None, int]]:
    """Every key, with its value as Redis dumps it and the instant of its end."""
    return {key: (await redis.dump(key), await redis.pexpiretime(key)) for key in await keys_in(redis)}


async def keys_in(redis: Redis) -> list[str]:
    return [_text(key) async for key in redis.scan_iter()]


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


async def listed_at(redis: Redis, owner_index: str, session: Session) -> int:
    """The time at which a lookup knows a session to have been created."""
    time_ms = await redis.zscore(owner_index, session.id)
    assert time_ms is not None
    return int(time_ms)


async def commands_seen(redis: Redis) -> Counter[str]:
    """How often Redis was asked each command, apart from this question, greetings, and what servers ask one another."""
    seen = Counter[str]()
    for statistics in await _statistics(redis):
        seen.update({name.removeprefix("cmdstat_"): counts["calls"] for name, counts in statistics.items()})
    return Counter({name: count for name, count in seen.items() if name.partition("|")[0] not in _NOT_OURS})


async def forget_commands(redis: Redis) -> None:
    """Let every server count from nought."""
    await redis.config_resetstat(**_everywhere(redis))


async def configured(redis: Redis, name: str, value: str | int) -> None:
    """Set it on every server."""
    await redis.config_set(name, value, **_everywhere(redis))


def _everywhere(redis: Redis) -> dict[str, Any]:
    return {"target_nodes": RedisCluster.ALL_NODES} if isinstance(redis, RedisCluster) else {}


async def _statistics(redis: Redis) -> list[dict[str, Any]]:
    """Of each server."""
    if not isinstance(redis, RedisCluster):
        return [await redis.info("commandstats")]
    by_node = await redis.info("commandstats", target_nodes=RedisCluster.PRIMARIES)
    return list(by_node.values())


def _texts(fields: Mapping[Any, Any]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in fields.items()}


def _text(reply: Any) -> str:
    return str(reply, "utf-8")
