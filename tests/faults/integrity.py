"""Check that every session in Redis has all of its keys: hash, tombstone, shard indexes and owner indexes."""

from collections.abc import Iterable, Iterator
from typing import Any

import redis

from service.sessions.keys import Keys
from service.sessions.scripts import FIELDS
from tests.faults.checker import ExpectedSession

_EXPIRY_MARGIN_MS = 5000


def incomplete_sessions(url: str, acknowledged: Iterable[ExpectedSession]) -> list[str]:
    """Describe the incomplete sessions, except sessions that expire within five seconds.

    The owner indexes may lack sessions whose creation was not acknowledged.
    """
    acknowledged_ids = {session.id for session in acknowledged}
    with redis.Redis.from_url(url, decode_responses=True) as client:
        keys = [key for key in client.scan_iter("session:*", count=1000) if ":idempotency:" not in key]
        sessions = [key for key in keys if not key.endswith(":tombstone")]
        return [
            *(fault for key in sessions for fault in _faults_of(client, key, acknowledged_ids)),
            *_keys_without_ttl(client),
        ]


def _faults_of(client: Any, key: str, acknowledged_ids: set[str]) -> Iterator[str]:
    session_id = key.rpartition(":")[2]
    keys = Keys("").of(session_id)
    pipeline = client.pipeline(transaction=False)
    pipeline.hgetall(key).pexpiretime(key).hgetall(keys.tombstone).pexpiretime(keys.tombstone).time()
    for index in (keys.expiry, keys.warning, keys.created):
        pipeline.zscore(index, session_id)
    session, key_expiry, tombstone, tombstone_expiry, (seconds, _), *scores = pipeline.execute()
    if not session or key_expiry < seconds * 1000 + _EXPIRY_MARGIN_MS:
        return
    expires_at = int(session.get("expiresAt", 0))
    is_complete = {
        "fields": set(session) >= {field.decode() for field in FIELDS},
        "expiry": key_expiry == expires_at,
        "tombstone": int(tombstone.get("expiresAt", 0)) == expires_at and tombstone_expiry > expires_at,
        "shard indexes": scores[0] == expires_at and None not in scores,
        "owner indexes": session_id not in acknowledged_ids or _is_indexed_or_deleted(client, key, session),
    }
    for part in (part for part, complete in is_complete.items() if not complete):
        yield f"{part} of {key}: {session} {key_expiry} {tombstone} {tombstone_expiry} {scores}"


def _is_indexed_or_deleted(client: Any, key: str, session: dict[str, str]) -> bool:
    owner_indexes = Keys("").owner_indexes(session["agentId"], session["userId"])
    is_indexed = all(client.zscore(owner_index, key.rpartition(":")[2]) for owner_index in owner_indexes)
    return is_indexed or not client.exists(key)


def _keys_without_ttl(client: "redis.Redis") -> Iterator[str]:
    for pattern in ("session:*", "sessions:user:*", "sessions:agent:*"):
        yield from (f"no TTL of {key}" for key in client.scan_iter(pattern, count=1000) if client.ttl(key) == -1)
