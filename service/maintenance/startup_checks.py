"""Check the configuration of the Redis servers, write the schema version, and log what an operator should change."""

import logging
import random
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from service.errors import StoreUnavailable
from service.redis_client.client import PartialFailure, RedisClient, Reply
from service.redis_client.errors import ScriptError
from service.sessions.events import SessionEvents
from service.sessions.keys import SCHEMA_VERSION, SHARDS, Keys
from service.timestamps import ms_from_time_reply

CHECK_INTERVAL_SECONDS = 30
OLDEST_REDIS = (7, 0)
MAX_CLOCK_DIFFERENCE_SECONDS = 5
STREAM_NODE_MAX_BYTES = 1024
"""Redis allocates this much at once for the messages of a session. By default it allocates 4096 bytes."""

_STREAM_NODE = "stream-node-max-bytes"

_log = logging.getLogger(__name__)

Info = Mapping[str, Any]


class StartupChecks:
    """Checks that run at the start and then periodically. `redis` should not be the client that serves requests."""

    def __init__(self, redis: RedisClient, keys: Keys, events: SessionEvents) -> None:
        self._redis = redis
        self._keys = keys
        self._events = events
        self._was_version_written = False
        self._were_servers_checked = False
        self._checked_servers: set[str] = set()
        self._were_large_hashes_found = False
        self._were_large_streams_found = False

    async def run(self) -> None:
        """Run the checks that have not succeeded yet, and always check that the schema version still exists.

        Raises StoreUnavailable after the other checks have run.
        """
        failures = PartialFailure()
        if not self._were_servers_checked:
            with failures:
                await check_servers(self._redis, self._checked_servers)
                self._were_servers_checked = True
        with failures, suppress(ScriptError):  # the key has the wrong type: SchemaVersion reports it
            await self._write_version()
        if not self._were_large_hashes_found:
            with suppress(StoreUnavailable, ScriptError):  # the next run checks another shard
                await self._check_hash_encoding()
        if not self._were_large_streams_found:
            with suppress(StoreUnavailable, ScriptError):
                await self._check_stream_nodes()
        failures.raise_if_any()

    async def _write_version(self) -> None:
        """Write the schema version if there is none. If it has disappeared, all data has."""
        (version,) = await self._redis.query(("GET", self._keys.layout))
        if version is None:
            (is_written,) = await self._redis.execute(("SET", self._keys.layout, SCHEMA_VERSION, "NX"))
            if is_written and self._was_version_written:  # otherwise another replica reports the loss
                self._events.store_emptied()
        self._was_version_written = True

    async def _check_hash_encoding(self) -> None:
        """Warn if Redis does not store the hashes of sessions as listpacks: they are several times larger then."""
        for session_id in await self._sample():
            (encoding,) = await self._redis.query(("OBJECT", "ENCODING", self._keys.session(session_id)))
            if encoding == b"hashtable":
                self._were_large_hashes_found = True
                _log.warning("sessions use more memory in Redis than necessary: set hash-max-listpack-value to 10240")

    async def _check_stream_nodes(self) -> None:
        """Warn if Redis allocates more memory for the messages of a session than most sessions use."""
        for session_id in await self._sample():
            (number,) = await self._redis.query(("XLEN", self._keys.of(session_id).messages))
            if number and await self._has_large_stream_nodes():
                self._were_large_streams_found = True
                _log.warning("messages use more memory in Redis than necessary: set stream-node-max-bytes to 1024")

    async def _has_large_stream_nodes(self) -> bool:
        replies = await self._redis.broadcast(("CONFIG", "GET", _STREAM_NODE))
        settings = [_settings_from(reply) for (reply,) in replies.values()]
        return any(int(found.get(_STREAM_NODE, 0)) > STREAM_NODE_MAX_BYTES for found in settings)

    async def _sample(self) -> list[str]:
        """Return a session of a random shard, or none."""
        (session_ids,) = await self._redis.query(("ZRANGE", self._keys.expiry(random.choice(SHARDS)), -1, -1))
        return [session_id.decode(errors="replace") for session_id in session_ids]


async def check_servers(redis: RedisClient, checked: set[str]) -> None:
    """Log the problems of each server that is not in `checked`, and add it to `checked`.

    Raises StoreUnavailable if a server does not respond, after the others have been checked.
    """
    failures = PartialFailure()
    started_at = time.time()
    servers = await redis.broadcast(("TIME",), ("INFO",), ("CONFIG", "GET", "save"))
    if not servers:
        raise StoreUnavailable("no server of the session store was found")
    checked &= servers.keys()
    for server in servers.keys() - checked:
        time_reply, info, save = servers[server]
        with failures:
            _log_problems(server, _ms_from(time_reply) / 1000 - started_at, info, save)
            checked.add(server)
    failures.raise_if_any()


async def server_infos(redis: RedisClient, section: str) -> dict[str, Info]:
    """Return a section of INFO by server address, without servers that do not respond or reject INFO."""
    replies = await redis.broadcast(("INFO", section))
    return {server: parse_info(info) for server, (info,) in replies.items() if not isinstance(info, Exception)}


def parse_info(reply: Reply) -> Info:
    """Parse a reply to INFO. Whole numbers become int. redis-py's own client has parsed it already."""
    if isinstance(reply, Mapping):
        return reply
    lines = [line.partition(":") for line in bytes(reply).decode(errors="replace").splitlines()]
    return {name: int(value) if value.isdecimal() else value for name, separator, value in lines if separator}


def server_name(info: Info) -> str:
    """Return the name and version of a server: `Redis 7.2.4`, `Valkey 9.1.2`."""
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', 'of an unknown version')}"


def evicting_policy(info: Info) -> str | None:
    """Return the maxmemory-policy if Redis may evict sessions, or None.

    Every policy except noeviction evicts them, because they have a TTL. With maxmemory 0, Redis evicts nothing.
    """
    policy = info.get("maxmemory_policy", "noeviction")
    return None if policy == "noeviction" or info.get("maxmemory") == 0 else str(policy)


def eviction_fault(policy: str) -> str:
    return (
        f"Redis evicts active sessions when it is full (maxmemory-policy {policy}): set maxmemory-policy to noeviction"
    )


def faults_of(info: Info, save_points: str | None, clock_ahead_seconds: float) -> list[str]:
    """Return the problems of a server, a sentence each. `save_points` is its setting `save`, or None if unknown."""
    policy = evicting_policy(info)
    return [
        *_version_fault(info),
        *([eviction_fault(policy)] if policy else []),
        *_persistence_fault(info, save_points),
        *_clock_fault(clock_ahead_seconds),
    ]


def _log_problems(server: str, clock_ahead_seconds: float, info: Reply, save: Reply) -> None:
    suffix = f" (server {server})" if server else ""
    if isinstance(info, Exception):
        _log.warning(
            "the version, eviction and persistence of the session store are not checked: it rejects INFO (%s)%s",
            info,
            suffix,
        )
        faults = _clock_fault(clock_ahead_seconds)
    else:
        faults = faults_of(parse_info(info), _save_points(save), clock_ahead_seconds)
        if not faults:
            _log.info("the session store is %s%s", server_name(parse_info(info)), suffix)
    for fault in faults:
        _log.warning("%s%s", fault, suffix)


def _ms_from(time_reply: Reply) -> int:
    if isinstance(time_reply, Exception):
        raise time_reply if isinstance(time_reply, StoreUnavailable) else StoreUnavailable(str(time_reply))
    return ms_from_time_reply(time_reply)


def _version_fault(info: Info) -> list[str]:
    version = re.match(r"(\d+)\.(\d+)", str(info.get("redis_version", "")))
    if "valkey_version" in info or version is None or (int(version[1]), int(version[2])) >= OLDEST_REDIS:
        return []
    return [f"{server_name(info)} is too old for this service: use Redis 7.0 or newer, or Valkey"]


def _persistence_fault(info: Info, save_points: str | None) -> list[str]:
    """INFO does not show whether a server without an append-only file has save points; its configuration does."""
    if info.get("aof_enabled") != 0 or save_points != "":
        return []
    return ["Redis stores nothing on disk, so a restart loses every session: set appendonly to yes"]


def _clock_fault(ahead_seconds: float) -> list[str]:
    if abs(ahead_seconds) <= MAX_CLOCK_DIFFERENCE_SECONDS:
        return []
    direction = "ahead of" if ahead_seconds > 0 else "behind"
    return [
        f"the clock of Redis is {abs(ahead_seconds):.0f} s {direction} the clock of this replica: sessions expire by "
        "the clock of Redis, but times in logs differ; synchronize both with NTP"
    ]


def _save_points(reply: Reply) -> str | None:
    """The setting `save`, or None if the account may not read it."""
    return _settings_from(reply).get("save")


def _settings_from(reply: Reply) -> dict[str, str]:
    """Return the settings of a reply to CONFIG GET: none if the account may not read them."""
    return {} if isinstance(reply, Exception) else {_text(name): _text(value) for name, value in reply.items()}


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()
