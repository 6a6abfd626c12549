"""A second implementation of the lifecycle rules in plain Python, without Redis and without a clock.

Each verb takes a session and a time, and returns the result and the session afterwards. A failed verb changes nothing.
`stored` returns the data that Redis must hold.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, NamedTuple

from service.errors import InvalidTimeoutConfig, RenewalFailed, SessionExpired, SessionNotFound
from service.sessions.session import Session, session_from
from service.settings.sessions import TimeoutConfig

FAILOVER_TOLERANCE_MS = 5000
"""A session is lost, not expired, if its hash disappears earlier than this before its expiry."""

NO_KEY = -2
"""The reply of PEXPIRETIME for a missing key."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Failure(NamedTuple):
    """An error, by its class and its facts."""

    kind: type[Exception]
    facts: Mapping[str, object]


class Deleted(NamedTuple):
    """The result of a deletion."""


Result = Session | Failure | Deleted


@dataclass(frozen=True)
class ModelSession:
    """A session that was created and not deleted."""

    id: str
    agent_id: str
    user_id: str
    metadata: bytes
    created_at_ms: int
    last_activity_ms: int
    renewed_at_ms: int
    timeout: TimeoutConfig
    retention_ms: int
    renewal_count: int = 0
    revision: int = 1
    is_lost: bool = False
    """Its hash was deleted by hand, and its tombstone still exists."""

    @property
    def max_duration_at_ms(self) -> int:
        return self.created_at_ms + minutes_to_ms(self.timeout.max_duration_minutes)

    @property
    def inactive_at_ms(self) -> int:
        return self.renewed_at_ms + minutes_to_ms(self.timeout.timeout_minutes)

    @property
    def expires_at_ms(self) -> int:
        return min(self.inactive_at_ms, self.max_duration_at_ms)

    @property
    def warns_at_ms(self) -> int:
        return self.expires_at_ms - minutes_to_ms(self.timeout.warning_threshold_minutes)

    @property
    def tombstone_expires_at_ms(self) -> int:
        return self.expires_at_ms + self.retention_ms

    @property
    def reason(self) -> str:
        return "inactivity" if self.inactive_at_ms < self.max_duration_at_ms else "max_duration"


Outcome = tuple[Result, ModelSession | None]


def get(session: ModelSession, now_ms: int) -> Outcome:
    return failure_at(session, now_ms) or as_session(session, now_ms), session


def heartbeat(session: ModelSession, now_ms: int) -> Outcome:
    failure = failure_at(session, now_ms)
    if failure:
        return failure, session
    active = replace(session, last_activity_ms=now_ms)
    if session.timeout.auto_renew and session.expires_at_ms < session.max_duration_at_ms:
        active = replace(active, renewed_at_ms=now_ms, renewal_count=session.renewal_count + 1)
    return as_session(active, now_ms), active


def renew(session: ModelSession, now_ms: int) -> Outcome:
    failure = failure_at(session, now_ms)
    if failure:
        return failure, session
    if session.expires_at_ms == session.max_duration_at_ms:
        return at_maximum(session), session
    renewed = replace(session, last_activity_ms=now_ms, renewed_at_ms=now_ms, renewal_count=session.renewal_count + 1)
    return as_session(renewed, now_ms), renewed


def update_timeout(session: ModelSession, now_ms: int, changes: Mapping[str, float | bool]) -> Outcome:
    failure = failure_at(session, now_ms)
    if failure:
        return failure, session
    timeout = TimeoutConfig(**{**session.timeout._asdict(), **changes})
    if "timeout_minutes" in changes and "max_duration_minutes" not in changes:
        raised = max(timeout.max_duration_minutes, timeout.timeout_minutes)
        timeout = timeout._replace(max_duration_minutes=raised)
    changed = replace(session, timeout=timeout, revision=session.revision + 1)
    if changed.expires_at_ms <= now_ms:
        facts = {"sessionId": session.id, "expiresAt": iso(changed.expires_at_ms)}
        return Failure(InvalidTimeoutConfig, facts), session
    return as_session(changed, now_ms), changed


def update_metadata(session: ModelSession, now_ms: int, patch: Mapping[str, Any]) -> Outcome:
    failure = failure_at(session, now_ms)
    if failure:
        return failure, session
    metadata = json.dumps(merge(json.loads(session.metadata), patch), separators=(",", ":"), ensure_ascii=False)
    changed = replace(session, metadata=metadata.encode(), revision=session.revision + 1)
    return as_session(changed, now_ms), changed


def merge(metadata: Any, patch: Mapping[str, Any]) -> dict[str, Any]:
    """Merge as the pseudocode of RFC 7396 does."""
    target = dict(metadata) if isinstance(metadata, dict) else {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, dict):
            target[name] = merge(target.get(name), value)
        else:
            target[name] = value
    return target


def delete(session: ModelSession, now_ms: int) -> Outcome:
    failure = failure_at(session, now_ms)
    return (failure, session) if failure else (Deleted(), None)


def aged(session: ModelSession, by_ms: int) -> ModelSession:
    """The session as if everything had happened earlier."""
    return replace(
        session,
        created_at_ms=session.created_at_ms - by_ms,
        last_activity_ms=session.last_activity_ms - by_ms,
        renewed_at_ms=session.renewed_at_ms - by_ms,
    )


def failure_at(session: ModelSession, now_ms: int) -> Failure | None:
    """The failure of every verb, unless the session is live."""
    if now_ms >= session.tombstone_expires_at_ms:
        return unknown(session.id)
    if session.is_lost and session.expires_at_ms > now_ms + FAILOVER_TOLERANCE_MS:
        return unknown(session.id)
    if session.is_lost or now_ms >= session.expires_at_ms:
        return expired(session)
    return None


def unknown(session_id: str) -> Failure:
    return Failure(SessionNotFound, {"sessionId": session_id})


def expired(session: ModelSession) -> Failure:
    facts = {"sessionId": session.id, "expiresAt": iso(session.expires_at_ms), "reason": session.reason}
    return Failure(SessionExpired, facts)


def at_maximum(session: ModelSession) -> Failure:
    facts = {
        "sessionId": session.id,
        "maxDurationMinutes": session.timeout.max_duration_minutes,
        "createdAt": iso(session.created_at_ms),
        "expiresAt": iso(session.expires_at_ms),
    }
    return Failure(RenewalFailed, facts)


def as_session(session: ModelSession, now_ms: int) -> Session:
    return session_from(session.id, list(_hash_of(session).values()), now_ms)


def is_near_expiration(session: ModelSession, now_ms: int) -> bool:
    return 0 < session.expires_at_ms - now_ms <= minutes_to_ms(session.timeout.warning_threshold_minutes)


class StoredData(NamedTuple):
    """The data of a session in Redis: its hashes, their PEXPIRETIME and its scores in the indexes."""

    session: Mapping[bytes, bytes]
    session_expires_at_ms: int
    tombstone: Mapping[bytes, bytes]
    tombstone_key_expires_at_ms: int
    expiry: float | None
    warning: float | None
    created: float | None


NO_DATA = StoredData({}, NO_KEY, {}, NO_KEY, None, None, None)


def stored(session: ModelSession | None, now_ms: int) -> StoredData:
    """The data that Redis must hold. Expired sessions stay in the indexes, because no sweeper runs."""
    if session is None:
        return NO_DATA
    has_hash = now_ms < session.expires_at_ms and not session.is_lost
    has_tombstone = now_ms < session.tombstone_expires_at_ms
    return StoredData(
        session=_hash_of(session) if has_hash else {},
        session_expires_at_ms=session.expires_at_ms if has_hash else NO_KEY,
        tombstone=_tombstone_of(session) if has_tombstone else {},
        tombstone_key_expires_at_ms=session.tombstone_expires_at_ms if has_tombstone else NO_KEY,
        expiry=session.expires_at_ms,
        warning=session.warns_at_ms,
        created=session.created_at_ms,
    )


def minutes_to_ms(minutes: float) -> int:
    return round(Fraction(minutes) * 60_000)


def iso(timestamp_ms: int) -> str:
    timestamp = _EPOCH + timedelta(milliseconds=timestamp_ms)
    return timestamp.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _hash_of(session: ModelSession) -> Mapping[bytes, bytes]:
    return _encode(
        agentId=session.agent_id,
        userId=session.user_id,
        createdAt=session.created_at_ms,
        lastActivity=session.last_activity_ms,
        renewedAt=session.renewed_at_ms,
        expiresAt=session.expires_at_ms,
        timeoutMinutes=session.timeout.timeout_minutes,
        autoRenew="true" if session.timeout.auto_renew else "false",
        maxDurationMinutes=session.timeout.max_duration_minutes,
        warningThresholdMinutes=session.timeout.warning_threshold_minutes,
        renewalCount=session.renewal_count,
        revision=session.revision,
        metadata=session.metadata.decode(),
    )


def _tombstone_of(session: ModelSession) -> Mapping[bytes, bytes]:
    return _encode(
        agentId=session.agent_id, userId=session.user_id, expiresAt=session.expires_at_ms, reason=session.reason
    )


def _encode(**fields: object) -> Mapping[bytes, bytes]:
    return {name.encode(): str(value).encode() for name, value in fields.items()}
