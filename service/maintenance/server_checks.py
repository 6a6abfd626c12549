"""What a Redis server says of itself, in words for an operator: which it is, and what should be set there."""

import logging
import re
import time
from collections.abc import Mapping
from typing import Any

from service.errors import StoreUnavailable
from service.redis_client.client import PartialFailure, RedisClient, Reply
from service.timestamps import ms_from_time_reply

OLDEST_REDIS = (7, 0)
CLOCK_MAY_DIFFER_BY_SECONDS = 5

_log = logging.getLogger(__name__)

Info = Mapping[str, Any]


async def check(redis: RedisClient, checked: set[str]) -> None:
    """Say in the log, in a line each, what should be set otherwise on servers not `checked` yet; then they are.

    Raises StoreUnavailable where one is silent, when the others have been checked.
    """
    failures = PartialFailure()
    asked_at = time.time()
    told = await redis.broadcast(("TIME",), ("INFO",), ("CONFIG", "GET", "save"))
    if not told:
        raise StoreUnavailable("no server of the session store was found")
    for server in told.keys() - checked:
        clock, info, save = told[server]
        with failures:
            _tell(server, _instant_of(clock) / 1000 - asked_at, info, save)
            checked.add(server)
    failures.raise_if_any()


async def infos(redis: RedisClient, section: str) -> dict[str, Info]:
    """What each server says of itself, by its address; nothing of those that do not answer or may not be asked."""
    replies = await redis.broadcast(("INFO", section))
    return {server: info_from(info) for server, (info,) in replies.items() if not isinstance(info, Exception)}


def info_from(reply: Reply) -> Info:
    """A reply to INFO, with whole numbers as such; redis-py has taken it apart already."""
    if isinstance(reply, Mapping):
        return reply
    lines = [line.partition(":") for line in bytes(reply).decode(errors="replace").splitlines()]
    return {name: int(value) if value.isdecimal() else value for name, separator, value in lines if separator}


def _tell(server: str, clock_ahead_seconds: float, info: Reply, save: Reply) -> None:
    where = f" (server {server})" if server else ""
    if isinstance(info, Exception):
        _log.warning(
            "the version, eviction and persistence of the session store are not checked: it refuses INFO (%s)%s",
            info,
            where,
        )
        faults = _clock_fault(clock_ahead_seconds)
    else:
        faults = faults_of(info_from(info), _save_points(save), clock_ahead_seconds)
        if not faults:
            _log.info("the session store is %s%s", name_of(info_from(info)), where)
    for fault in faults:
        _log.warning("%s%s", fault, where)


def _instant_of(clock: Reply) -> int:
    if isinstance(clock, Exception):
        raise clock if isinstance(clock, StoreUnavailable) else StoreUnavailable(str(clock))
    return ms_from_time_reply(clock)


def name_of(info: Info) -> str:
    """`Redis 7.2.4`, `Valkey 9.1.2`."""
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', 'of an unknown version')}"


def evicting_policy(info: Info) -> str | None:
    """The maxmemory-policy if it lets Redis drop sessions: they have a TTL, so any but noeviction does.

    Where maxmemory is 0 Redis is never full, and drops nothing whatever its policy.
    """
    policy = info.get("maxmemory_policy", "noeviction")
    return None if policy == "noeviction" or info.get("maxmemory") == 0 else str(policy)


def eviction_fault(policy: str) -> str:
    return f"Redis drops live sessions when it is full (maxmemory-policy {policy}): set maxmemory-policy to noeviction"


def faults_of(info: Info, save_points: str | None, clock_ahead_seconds: float) -> list[str]:
    """What is wrong with a server, a sentence each. `save_points` is its setting `save`, None if that is not told."""
    policy = evicting_policy(info)
    return [
        *_version_fault(info),
        *([eviction_fault(policy)] if policy else []),
        *_persistence_fault(info, save_points),
        *_clock_fault(clock_ahead_seconds),
    ]


def _version_fault(info: Info) -> list[str]:
    version = re.match(r"(\d+)\.(\d+)", str(info.get("redis_version", "")))
    if "valkey_version" in info or version is None or (int(version[1]), int(version[2])) >= OLDEST_REDIS:
        return []
    return [f"{name_of(info)} is too old for this service: use Redis 7.0 or newer, or Valkey"]


def _persistence_fault(info: Info, save_points: str | None) -> list[str]:
    """Only its save points tell whether a server without an append-only file keeps anything: INFO does not."""
    if info.get("aof_enabled") != 0 or save_points != "":
        return []
    return ["Redis keeps nothing on disk, so its restart loses every session: set appendonly to yes"]


def _clock_fault(ahead_seconds: float) -> list[str]:
    if abs(ahead_seconds) <= CLOCK_MAY_DIFFER_BY_SECONDS:
        return []
    where = "ahead of" if ahead_seconds > 0 else "behind"
    return [
        f"Redis's clock is {abs(ahead_seconds):.0f} s {where} this replica's: sessions live by Redis's alone, but "
        "times in logs will not agree; let NTP set both"
    ]


def _save_points(reply: Reply) -> str | None:
    """The value of the setting `save`; None where the account may not ask."""
    if isinstance(reply, Exception):
        return None
    found = {_text(name): _text(value) for name, value in reply.items()}
    return found.get("save")


def _text(word: bytes | str) -> str:
    return word if isinstance(word, str) else word.decode()
