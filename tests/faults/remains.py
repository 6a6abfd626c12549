"""Looks through all that Redis holds for what is half-written: a session has all of its keys, or none."""

from collections.abc import Iterator
from typing import Any

import redis

from service.keys import Keys
from service.scripts import FIELDS

_CLOCK_MARGIN_MS = 5000


def half_written(url: str) -> list[str]:
    """What is not whole, in words. Sessions about to end are left out: they may end while they are looked at."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        sessions = [key for key in client.scan_iter("session:*", count=1000) if not key.endswith(":tombstone")]
        return [fault for key in sessions for fault in _faults_of(client, key)] + list(_endless(client))


def _faults_of(client: Any, key: str) -> Iterator[str]:
    keys, session_id = Keys("").of(key.rpartition(":")[2]), key.rpartition(":")[2]
    look = client.pipeline()
    look.hgetall(key).pexpiretime(key).hgetall(keys.tombstone).pexpiretime(keys.tombstone).time()
    for index in (keys.expiry, keys.warning, keys.created):
        look.zscore(index, session_id)
    session, dies, tombstone, forgotten, (seconds, _), *scores = look.execute()
    if not session or dies < seconds * 1000 + _CLOCK_MARGIN_MS:
        return
    expires_at = int(session.get("expiresAt", 0))
    whole = {
        "fields": set(session) >= {field.decode() for field in FIELDS},
        "its end": dies == expires_at,
        "its tombstone": int(tombstone.get("expiresAt", 0)) == expires_at and forgotten > expires_at,
        "its indexes": scores[0] == expires_at and None not in scores,
        "its lookups": all(client.zscore(lookup, session_id) for lookup in _lookups_of(session)),
    }
    for what in (what for what, is_right in whole.items() if not is_right):
        yield f"{what} of {key}: {session} {dies} {tombstone} {forgotten} {scores}"


def _lookups_of(session: dict[str, str]) -> list[str]:
    return Keys("").lookups(session["agentId"], session["userId"])


def _endless(client: "redis.Redis") -> Iterator[str]:
    for pattern in ("session:*", "sessions:user:*", "sessions:agent:*"):
        yield from (f"no end of {key}" for key in client.scan_iter(pattern, count=1000) if client.ttl(key) == -1)
