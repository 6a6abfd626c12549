"""The session: its value, its words, and the ids it goes by."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import uuid4

from service.settings.sessions import IdFormat, TimeoutConfig

_ISSUED_ID = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}|[0-9a-f]{32}|[0-9a-f]{64}"
)


Revisions = frozenset[bytes]
"""Those at one of which a session must be to be changed, as they are stored."""


class NewSession(NamedTuple):
    """A request for a session. `timeout` holds members of TimeoutConfig, `metadata` is a JSON object."""

    agent_id: str
    user_id: str
    timeout: Mapping[str, float | bool]
    metadata: bytes


class SessionFields(NamedTuple):
    """The fields of a session's hash as Redis holds them (see `keys`), in the order in which they are read."""

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
    """A live session as it was at `seen_at_ms`. Every instant is in milliseconds of Redis's clock.

    Its fields stay as they are stored: most are only passed on.
    """

    id: str
    stored: SessionFields
    expires_at_ms: int
    seen_at_ms: int

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
            self.renews_itself,
            minutes_from(self.stored.max_duration_minutes),
            minutes_from(self.stored.warning_threshold_minutes),
        )

    @property
    def renews_itself(self) -> bool:
        return self.stored.auto_renew == b"true"

    @property
    def renewal_count(self) -> int:
        return int(self.stored.renewal_count)

    @property
    def metadata(self) -> bytes:
        """A JSON object, as it is stored."""
        return self.stored.metadata

    @property
    def time_remaining_ms(self) -> int:
        return self.expires_at_ms - self.seen_at_ms

    @property
    def is_near_expiration(self) -> bool:
        return 0 < self.time_remaining_ms <= float(self.stored.warning_threshold_minutes) * 60_000


class CreatedSession(NamedTuple):
    """A session, and whether an earlier request with the same Idempotency-Key created it."""

    session: Session
    is_replay: bool


def session_from(session_id: str, values: Sequence[bytes], seen_at_ms: int) -> Session:
    """The session whose fields have these values, in the order of Stored."""
    stored = SessionFields._make(values)
    return Session(session_id, stored, int(stored.expires_at), seen_at_ms)


def minutes_from(stored: bytes) -> float:
    """Minutes as they are stored: `b"30"` is an int, `b"0.5"` a float."""
    return int(stored) if stored.isdigit() else float(stored)


def as_stored(members: Mapping[str, float | bool]) -> dict[str, str]:
    """Members of a timeout configuration as they are stored: `30`, `0.5`, `true`."""
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
    """Whether this service could have issued the id; what it could not have issued is unknown without asking.

    Replicas may differ in their settings, and settings change: each format is known to all.
    """
    return _ISSUED_ID.fullmatch(candidate) is not None
