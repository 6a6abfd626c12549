"""Read what Redis holds and which commands it has run."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis, RedisCluster

from service.sessions.keys import Keys
from service.sessions.session import Session

KEYS = Keys("")

_CONNECTION_COMMANDS = {"hello", "auth", "select", "client", "script", "command", "cluster"}
_SERVER_COMMANDS = {"ping", "publish", "subscribe", "role", "replconf", "psync", "info", "config"}
_IGNORED_COMMANDS = _CONNECTION_COMMANDS | _SERVER_COMMANDS


async def contents(redis: Redis) -> dict[str, tuple[bytes | None, int]]:
    """Every key with its dumped value and its PEXPIRETIME."""
    return {key: (await redis.dump(key), await redis.pexpiretime(key)) for key in await keys_in(redis)}


async def keys_in(redis: Redis) -> list[str]:
    return [_text(key) async for key in redis.scan_iter()]


async def fields_of(redis: Redis, session: Session) -> dict[str, str]:
    return _texts(await redis.hgetall(KEYS.session(session.id)))


async def tombstone_of(redis: Redis, session: Session) -> dict[str, str]:
    return _texts(await redis.hgetall(KEYS.tombstone(session.id)))


async def scores_of(redis: Redis, session: Session) -> dict[str, float | None]:
    """The scores of a session in the indexes of its shard."""
    keys = KEYS.of(session.id)
    return {
        "expiry": await redis.zscore(keys.expiry, session.id),
        "warning": await redis.zscore(keys.warning, session.id),
        "created": await redis.zscore(keys.created, session.id),
    }


async def expiry_times_of(redis: Redis, session: Session) -> dict[str, int]:
    """The PEXPIRETIME of a session's hash and tombstone."""
    keys = KEYS.of(session.id)
    return {"session": await redis.pexpiretime(keys.session), "tombstone": await redis.pexpiretime(keys.tombstone)}


async def indexed_at_ms(redis: Redis, owner_index: str, session: Session) -> int:
    """The creation time of a session in an owner index."""
    time_ms = await redis.zscore(owner_index, session.id)
    assert time_ms is not None
    return int(time_ms)


async def command_counts(redis: Redis) -> Counter[str]:
    """How often each command has run, also within scripts, without those of connections and between servers."""
    counts = Counter[str]()
    for statistics in await _command_statistics(redis):
        counts.update({name.removeprefix("cmdstat_"): stats["calls"] for name, stats in statistics.items()})
    return Counter({name: count for name, count in counts.items() if name.partition("|")[0] not in _IGNORED_COMMANDS})


async def reset_command_counts(redis: Redis) -> None:
    """Reset the statistics of every server."""
    await redis.config_resetstat(**_all_nodes(redis))


async def set_config(redis: Redis, name: str, value: str | int) -> None:
    """Set a configuration directive on every server."""
    await redis.config_set(name, value, **_all_nodes(redis))


def _all_nodes(redis: Redis) -> dict[str, Any]:
    return {"target_nodes": RedisCluster.ALL_NODES} if isinstance(redis, RedisCluster) else {}


async def _command_statistics(redis: Redis) -> list[dict[str, Any]]:
    if not isinstance(redis, RedisCluster):
        return [await redis.info("commandstats")]
    by_node = await redis.info("commandstats", target_nodes=RedisCluster.PRIMARIES)
    return list(by_node.values())


def _texts(fields: Mapping[Any, Any]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in fields.items()}


def _text(reply: Any) -> str:
    return str(reply, "utf-8")
