"""The session: its value, its words, and the ids it goes by."""

import re
import uuid
from collections.abc import Mapping
from typing import NamedTuple

_ISSUED_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


class TimeoutConfig(NamedTuple):
    """The timeout configuration in force for a session; minutes are whole unless the settings allow fractions."""

    timeout_minutes: float
    auto_renew: bool
    max_duration_minutes: float
    warning_threshold_minutes: float


class Session(NamedTuple):
    """A live session as it was at `seen_at_ms`, over the fields of its hash (named in `keys`).

    Every instant is in milliseconds of Redis's clock. The fields stay as they are stored: most are only passed on.
    """

    id: str
    fields: Mapping[bytes, bytes]
    expires_at_ms: int
    seen_at_ms: int

    @property
    def agent_id(self) -> str:
        return self.fields[b"agentId"].decode()

    @property
    def user_id(self) -> str:
        return self.fields[b"userId"].decode()

    @property
    def created_at_ms(self) -> int:
        return int(self.fields[b"createdAt"])

    @property
    def last_activity_ms(self) -> int:
        return int(self.fields[b"lastActivity"])

    @property
    def timeout(self) -> TimeoutConfig:
        return TimeoutConfig(
            minutes_from(self.fields[b"timeoutMinutes"]),
            self.fields[b"autoRenew"] == b"true",
            minutes_from(self.fields[b"maxDurationMinutes"]),
            minutes_from(self.fields[b"warningThresholdMinutes"]),
        )

    @property
    def renewal_count(self) -> int:
        return int(self.fields[b"renewalCount"])

    @property
    def metadata(self) -> bytes:
        """A JSON object, as it is stored."""
        return self.fields[b"metadata"]

    @property
    def time_remaining_ms(self) -> int:
        return self.expires_at_ms - self.seen_at_ms

    @property
    def is_near_expiration(self) -> bool:
        return 0 < self.time_remaining_ms <= float(self.fields[b"warningThresholdMinutes"]) * 60_000


def session_from(session_id: str, fields: Mapping[bytes, bytes], seen_at_ms: int) -> Session:
    """The session that a hash holds."""
    return Session(session_id, fields, int(fields[b"expiresAt"]), seen_at_ms)


def minutes_from(stored: bytes) -> float:
    """Minutes as they are stored: `b"30"` is an int, `b"0.5"` a float."""
    return int(stored) if stored.isdigit() else float(stored)


def new_session_id() -> str:
    return str(uuid.uuid4())


def is_issued_id(candidate: str) -> bool:
    """Whether this service could have issued the id; what it could not have issued is unknown without asking."""
    return _ISSUED_ID.fullmatch(candidate) is not None
