"""Sessions as values, their ids, and the errors that scripts' replies stand for."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import uuid4

from service.errors import InvalidTimeoutConfig, PreconditionFailed, RenewalFailed, SessionExpired, SessionNotFound
from service.redis_client.client import Reply
from service.redis_client.errors import UnexpectedReply
from service.settings.sessions import IdFormat, TimeoutConfig

LOST = [b"lost"]
MISSING = [b"missing"]
"""Replies of scripts to a session that is not live."""

_ISSUED_ID = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}|[0-9a-f]{32}|[0-9a-f]{64}"
)

Revisions = frozenset[bytes]
"""The revisions that a conditional change accepts, as stored."""


class NewSession(NamedTuple):
    """A request for a session. `timeout` holds members of TimeoutConfig, `metadata` is a JSON object."""

    agent_id: str
    user_id: str
    timeout: Mapping[str, float | bool]
    metadata: bytes
    evicts_only_own: bool = False
    """Whether a cap of the agent may evict only sessions of this user."""


class SessionFields(NamedTuple):
    """The fields of a session's hash as stored, in the order of the scripts' replies (see prelude.lua)."""

    agent_id: bytes
    user_id: bytes
    created_at: bytes
    last_activity: bytes
    renewed_at: bytes
    expires_at: bytes
    timeout_minutes: bytes
    auto_renew: bytes
    max_duration_minutes: bytes
    warning_threshold_minutes: bytes
    renewal_count: bytes
    revision: bytes
    metadata: bytes


class Session(NamedTuple):
    """A session that was live at `read_at_ms`. Times are in milliseconds of the Redis server's clock.

    Fields stay as stored, because responses copy most of them unchanged.
    """

    id: str
    stored: SessionFields
    expires_at_ms: int
    read_at_ms: int

    @property
    def agent_id(self) -> str:
        return self.stored.agent_id.decode()

    @property
    def user_id(self) -> str:
        return self.stored.user_id.decode()

    @property
    def created_at_ms(self) -> int:
        return int(self.stored.created_at)

    @property
    def last_activity_ms(self) -> int:
        return int(self.stored.last_activity)

    @property
    def timeout(self) -> TimeoutConfig:
        return TimeoutConfig(
            minutes_from(self.stored.timeout_minutes),
            self.has_auto_renew,
            minutes_from(self.stored.max_duration_minutes),
            minutes_from(self.stored.warning_threshold_minutes),
        )

    @property
    def has_auto_renew(self) -> bool:
        return self.stored.auto_renew == b"true"

    @property
    def renewal_count(self) -> int:
        return int(self.stored.renewal_count)

    @property
    def metadata(self) -> bytes:
        """A JSON object."""
        return self.stored.metadata

    @property
    def time_remaining_ms(self) -> int:
        return self.expires_at_ms - self.read_at_ms

    @property
    def is_near_expiration(self) -> bool:
        return 0 < self.time_remaining_ms <= float(self.stored.warning_threshold_minutes) * 60_000


class CreatedSession(NamedTuple):
    """A session, and whether an earlier request with the same Idempotency-Key created it."""

    session: Session
    is_replay: bool


def session_from(session_id: str, values: Sequence[bytes], read_at_ms: int) -> Session:
    """Build a session from field values in the order of SessionFields."""
    stored = SessionFields._make(values)
    return Session(session_id, stored, int(stored.expires_at), read_at_ms)


def error_for_reply(session_id: str, reply: Sequence[Reply]) -> Exception:
    """Convert a script's reply without a session to an error. A lost session is not found."""
    match reply:
        case [b"missing"] | [b"lost"]:
            return SessionNotFound(session_id)
        case [b"expired", expires_at_ms, reason]:
            return SessionExpired(session_id, int(expires_at_ms), reason.decode())
        case [b"at_maximum", created_at_ms, max_duration_minutes, expires_at_ms]:
            return RenewalFailed(
                session_id,
                created_at_ms=int(created_at_ms),
                max_duration_minutes=minutes_from(max_duration_minutes),
                expires_at_ms=int(expires_at_ms),
            )
        case [b"other_revision", revision]:
            return PreconditionFailed(session_id, int(revision))
        case [b"in_the_past", expires_at_ms]:
            return InvalidTimeoutConfig(session_id, int(expires_at_ms))
        case _:
            return UnexpectedReply(repr(reply[:1]))


def minutes_from(stored: bytes) -> float:
    """Convert stored minutes: `b"30"` to an int, `b"0.5"` to a float."""
    return int(stored) if stored.isdigit() else float(stored)


def as_stored(members: Mapping[str, float | bool]) -> dict[str, str]:
    """Convert members of TimeoutConfig to their stored form: `30`, `0.5`, `true`."""
    return {name: str(value).lower() for name, value in members.items()}


def new_session_id(id_format: IdFormat = "uuid") -> str:
    """Generate an id from the system's random source."""
    match id_format:
        case "uuid":
            return str(uuid4())
        case "hex128":
            return os.urandom(16).hex()
        case "hex256":
            return os.urandom(32).hex()


def is_issued_id(candidate: str) -> bool:
    """Whether the service could have issued the id. Accepts every format, because replicas' settings may differ."""
    return _ISSUED_ID.fullmatch(candidate) is not None
