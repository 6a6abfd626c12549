"""What the scripts answer of a session that cannot be had, and what a client is told of it."""

from collections.abc import Sequence

from service.errors import InvalidTimeoutConfig, PreconditionFailed, RenewalFailed, SessionExpired, SessionNotFound
from service.redis_client.client import Reply
from service.redis_client.errors import UnexpectedReply
from service.sessions.session import minutes_from

LOST = [b"lost"]
MISSING = [b"missing"]
REVOKED = [b"revoked"]


def error_for_reply(session_id: str, answer: Sequence[Reply]) -> Exception:
    """Told of a lost session as of one that is unknown."""
    match answer:
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
            return UnexpectedReply(repr(answer[:1]))
