"""Sessions as values, their ids, and the errors that scripts' replies stand for."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import uuid4

import orjson

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

_INTEGER = rb"(?:0|[1-9]\d{0,13})"
_MINUTES = rb"(?:0|[1-9]\d{0,9})(?:\.\d{1,20})?(?:e-\d\d)?"
_READABLE_FIELDS = re.compile(
    rb"[\w-]+ [\w-]+ %b %b %b %b %b (?:true|false) %b %b %b %b"
    % (*[_INTEGER] * 4, _MINUTES, _MINUTES, _MINUTES, _INTEGER, _INTEGER)
)
"""All fields but the metadata, separated by spaces. Times are before the year 5138."""

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

    def is_owned_by(self, owner_id: str) -> bool:
        """Whether this user, or the agent of `agent:<id>`, owns the session."""
        kind, _, agent_id = owner_id.partition(":")
        return agent_id == self.agent_id if kind == "agent" else owner_id == self.user_id

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


def readable_session_from(session_id: str, values: Sequence[bytes | None], read_at_ms: int) -> Session | None:
    """Build a session, or return None if a field is missing or unreadable, for example after a manual change."""
    present = [value for value in values if value is not None]
    if len(present) != len(values) or not _READABLE_FIELDS.fullmatch(b" ".join(present[:-1])):
        return None
    session = session_from(session_id, present, read_at_ms)
    return session if _is_json_object(session.metadata) else None


def decode_owner(stored: bytes) -> str:
    """Decode the id of an agent or a user. Bytes that are no UTF-8 are replaced."""
    return stored.decode(errors="replace")


def is_readable(session: Session) -> bool:
    return readable_session_from(session.id, session.stored, session.read_at_ms) is not None


def is_readable_policy(members: Mapping[str, bytes]) -> bool:
    """Whether the members of a stored policy have the form in which the service stores them."""
    return all(
        value in (b"true", b"false") if name == "auto_renew" else re.fullmatch(_MINUTES, value)
        for name, value in members.items()
    )


def _is_json_object(text: bytes) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except ValueError:
        return False


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
