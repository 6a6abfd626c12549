"""Looks through all that Redis holds for what is half-written: a session has all of its keys, or none."""

from collections.abc import Iterable, Iterator
from typing import Any

import redis

from service.sessions.keys import Keys
from service.sessions.scripts import FIELDS
from tests.faults.checker import Known

_CLOCK_MARGIN_MS = 5000


def half_written(url: str, acknowledged: Iterable[Known]) -> list[str]:
    """What is not whole, in words. Sessions about to end are left out: they may end while they are looked at.

    Lookups need to know the sessions whose creation was acknowledged.
    """
    listed = {known.id for known in acknowledged}
    with redis.Redis.from_url(url, decode_responses=True) as client:
        keys = [key for key in client.scan_iter("session:*", count=1000) if ":idempotency:" not in key]
        sessions = [key for key in keys if not key.endswith(":tombstone")]
        return [fault for key in sessions for fault in _faults_of(client, key, listed)] + list(_endless(client))


def _faults_of(client: Any, key: str, listed: set[str]) -> Iterator[str]:
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
        "its lookups": session_id not in listed or _is_listed(client, key, session),
    }
    for what in (what for what, is_right in whole.items() if not is_right):
        yield f"{what} of {key}: {session} {dies} {tombstone} {forgotten} {scores}"


def _is_listed(client: Any, key: str, session: dict[str, str]) -> bool:
    """Whether its lookups know it, or it has been deleted meanwhile."""
    owner_indexes = Keys("").owner_indexes(session["agentId"], session["userId"])
    return all(
        client.zscore(owner_index, key.rpartition(":")[2]) for owner_index in owner_indexes
    ) or not client.exists(key)


def _endless(client: "redis.Redis") -> Iterator[str]:
    for pattern in ("session:*", "sessions:user:*", "sessions:agent:*"):
        yield from (f"no end of {key}" for key in client.scan_iter(pattern, count=1000) if client.ttl(key) == -1)
