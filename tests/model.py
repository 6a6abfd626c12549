"""The rules of a session's life, told a second time: in plain Python, apart from the service, with no clock of its own.

Each verb says what becomes of a life at an instant: the answer, and the life after it. Every refusal leaves the life
as it was. `stored` says what Redis has to hold.
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
"""A hash that is gone with its end further ahead than this was lost, not expired."""

NO_KEY = -2
"""What PEXPIRETIME says of a key that is not there."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Refused(NamedTuple):
    """A refusal as clients see it: its class and its details."""

    kind: type[Exception]
    details: Mapping[str, object]


class Deleted(NamedTuple):
    """The answer to a deletion."""


Answer = Session | Refused | Deleted


@dataclass(frozen=True)
class Life:
    """What is to be known of a session that was created and not deleted."""

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
    """Its hash was removed by hand; the tombstone is still there."""

    @property
    def maximum_ms(self) -> int:
        return self.created_at_ms + in_ms(self.timeout.max_duration_minutes)

    @property
    def inactive_ms(self) -> int:
        return self.renewed_at_ms + in_ms(self.timeout.timeout_minutes)

    @property
    def expires_at_ms(self) -> int:
        return min(self.inactive_ms, self.maximum_ms)

    @property
    def warned_at_ms(self) -> int:
        return self.expires_at_ms - in_ms(self.timeout.warning_threshold_minutes)

    @property
    def forgotten_at_ms(self) -> int:
        return self.expires_at_ms + self.retention_ms

    @property
    def reason(self) -> str:
        return "inactivity" if self.inactive_ms < self.maximum_ms else "max_duration"


Outcome = tuple[Answer, Life | None]


def get(life: Life, now_ms: int) -> Outcome:
    return error_for_reply(life, now_ms) or seen(life, now_ms), life


def heartbeat(life: Life, now_ms: int) -> Outcome:
    refusal = error_for_reply(life, now_ms)
    if refusal:
        return refusal, life
    active = replace(life, last_activity_ms=now_ms)
    if life.timeout.auto_renew and life.expires_at_ms < life.maximum_ms:
        active = replace(active, renewed_at_ms=now_ms, renewal_count=life.renewal_count + 1)
    return seen(active, now_ms), active


def renew(life: Life, now_ms: int) -> Outcome:
    refusal = error_for_reply(life, now_ms)
    if refusal:
        return refusal, life
    if life.expires_at_ms == life.maximum_ms:
        return nothing_left_to_extend(life), life
    renewed = replace(life, last_activity_ms=now_ms, renewed_at_ms=now_ms, renewal_count=life.renewal_count + 1)
    return seen(renewed, now_ms), renewed


def update_timeout(life: Life, now_ms: int, changes: Mapping[str, float | bool]) -> Outcome:
    refusal = error_for_reply(life, now_ms)
    if refusal:
        return refusal, life
    configured = replace(
        life, timeout=TimeoutConfig(**{**life.timeout._asdict(), **changes}), revision=life.revision + 1
    )
    if configured.expires_at_ms <= now_ms:
        ended = {"sessionId": life.id, "expiresAt": iso(configured.expires_at_ms)}
        return Refused(InvalidTimeoutConfig, ended), life
    return seen(configured, now_ms), configured


def update_metadata(life: Life, now_ms: int, patch: Mapping[str, Any]) -> Outcome:
    refusal = error_for_reply(life, now_ms)
    if refusal:
        return refusal, life
    metadata = json.dumps(patched(json.loads(life.metadata), patch), separators=(",", ":"), ensure_ascii=False)
    annotated = replace(life, metadata=metadata.encode(), revision=life.revision + 1)
    return seen(annotated, now_ms), annotated


def patched(metadata: Any, patch: Mapping[str, Any]) -> dict[str, Any]:
    """The merging of RFC 7396, step by step as it says there."""
    target = dict(metadata) if isinstance(metadata, dict) else {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, dict):
            target[name] = patched(target.get(name), value)
        else:
            target[name] = value
    return target


def delete(life: Life, now_ms: int) -> Outcome:
    refusal = error_for_reply(life, now_ms)
    return (refusal, life) if refusal else (Deleted(), None)


def aged(life: Life, by_ms: int) -> Life:
    """The life as if all that happened in it had happened that much earlier."""
    return replace(
        life,
        created_at_ms=life.created_at_ms - by_ms,
        last_activity_ms=life.last_activity_ms - by_ms,
        renewed_at_ms=life.renewed_at_ms - by_ms,
    )


def error_for_reply(life: Life, now_ms: int) -> Refused | None:
    """Why no verb can be carried out on a session, if so."""
    if now_ms >= life.forgotten_at_ms:
        return unknown(life.id)
    if life.is_lost and life.expires_at_ms > now_ms + FAILOVER_TOLERANCE_MS:
        return unknown(life.id)
    if life.is_lost or now_ms >= life.expires_at_ms:
        return expired(life)
    return None


def unknown(session_id: str) -> Refused:
    return Refused(SessionNotFound, {"sessionId": session_id})


def expired(life: Life) -> Refused:
    details = {"sessionId": life.id, "expiresAt": iso(life.expires_at_ms), "reason": life.reason}
    return Refused(SessionExpired, details)


def nothing_left_to_extend(life: Life) -> Refused:
    details = {
        "sessionId": life.id,
        "maxDurationMinutes": life.timeout.max_duration_minutes,
        "createdAt": iso(life.created_at_ms),
        "expiresAt": iso(life.expires_at_ms),
    }
    return Refused(RenewalFailed, details)


def seen(life: Life, now_ms: int) -> Session:
    return session_from(life.id, list(_hash_of(life).values()), now_ms)


def is_near_expiration(life: Life, now_ms: int) -> bool:
    return 0 < life.expires_at_ms - now_ms <= in_ms(life.timeout.warning_threshold_minutes)


class SessionFields(NamedTuple):
    """What Redis holds of one session: its hashes, their ends (PEXPIRETIME) and its scores in its shard's indexes."""

    session: Mapping[bytes, bytes]
    session_dies_at_ms: int
    tombstone: Mapping[bytes, bytes]
    tombstone_dies_at_ms: int
    expiry: float | None
    warning: float | None
    created: float | None


NOTHING_STORED = SessionFields({}, NO_KEY, {}, NO_KEY, None, None, None)


def stored(life: Life | None, now_ms: int) -> SessionFields:
    """What is stored of a life, or of none; the indexes keep an ended one, for the sweeper that does not run here."""
    if life is None:
        return NOTHING_STORED
    has_hash = now_ms < life.expires_at_ms and not life.is_lost
    has_tombstone = now_ms < life.forgotten_at_ms
    return SessionFields(
        session=_hash_of(life) if has_hash else {},
        session_dies_at_ms=life.expires_at_ms if has_hash else NO_KEY,
        tombstone=_tombstone_of(life) if has_tombstone else {},
        tombstone_dies_at_ms=life.forgotten_at_ms if has_tombstone else NO_KEY,
        expiry=life.expires_at_ms,
        warning=life.warned_at_ms,
        created=life.created_at_ms,
    )


def in_ms(minutes: float) -> int:
    return round(Fraction(minutes) * 60_000)


def iso(instant_ms: int) -> str:
    instant = _EPOCH + timedelta(milliseconds=instant_ms)
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _hash_of(life: Life) -> Mapping[bytes, bytes]:
    return _in_bytes(
        agentId=life.agent_id,
        userId=life.user_id,
        createdAt=life.created_at_ms,
        lastActivity=life.last_activity_ms,
        renewedAt=life.renewed_at_ms,
        expiresAt=life.expires_at_ms,
        timeoutMinutes=life.timeout.timeout_minutes,
        autoRenew="true" if life.timeout.auto_renew else "false",
        maxDurationMinutes=life.timeout.max_duration_minutes,
        warningThresholdMinutes=life.timeout.warning_threshold_minutes,
        renewalCount=life.renewal_count,
        revision=life.revision,
        metadata=life.metadata.decode(),
    )


def _tombstone_of(life: Life) -> Mapping[bytes, bytes]:
    return _in_bytes(agentId=life.agent_id, userId=life.user_id, expiresAt=life.expires_at_ms, reason=life.reason)


def _in_bytes(**fields: object) -> Mapping[bytes, bytes]:
    return {name.encode(): str(value).encode() for name, value in fields.items()}
