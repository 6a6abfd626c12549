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
    """A live session as it was at `seen_at_ms`; every instant is in milliseconds of Redis's clock."""

    id: str
    agent_id: str
    user_id: str
    created_at_ms: int
    last_activity_ms: int
    expires_at_ms: int
    timeout: TimeoutConfig
    renewal_count: int
    metadata: bytes
    """A JSON object, as it is stored."""
    seen_at_ms: int

    @property
    def time_remaining_ms(self) -> int:
        return self.expires_at_ms - self.seen_at_ms

    @property
    def is_near_expiration(self) -> bool:
        return 0 < self.time_remaining_ms <= self.timeout.warning_threshold_minutes * 60_000


def session_from(session_id: str, fields: Mapping[bytes, bytes], seen_at_ms: int) -> Session:
    """The session that a hash holds (its fields are named in `keys`)."""
    return Session(
        session_id,
        fields[b"agentId"].decode(),
        fields[b"userId"].decode(),
        int(fields[b"createdAt"]),
        int(fields[b"lastActivity"]),
        int(fields[b"expiresAt"]),
        TimeoutConfig(
            minutes_from(fields[b"timeoutMinutes"]),
            fields[b"autoRenew"] == b"true",
            minutes_from(fields[b"maxDurationMinutes"]),
            minutes_from(fields[b"warningThresholdMinutes"]),
        ),
        int(fields[b"renewalCount"]),
        fields[b"metadata"],
        seen_at_ms,
    )


def minutes_from(stored: bytes) -> float:
    """Minutes as they are stored: `b"30"` is an int, `b"0.5"` a float."""
    return int(stored) if stored.isdigit() else float(stored)


def new_session_id() -> str:
    return str(uuid.uuid4())


def is_issued_id(candidate: str) -> bool:
    """Whether this service could have issued the id; what it could not have issued is unknown without asking."""
    return _ISSUED_ID.fullmatch(candidate) is not None
