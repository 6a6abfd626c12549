"""The outcome of a call of the store as one word, for tests in which many calls race."""

from collections.abc import Awaitable, Callable
from typing import Any

from service.errors import (
    CreationContention,
    InvalidTimeoutConfig,
    PreconditionFailed,
    RenewalFailed,
    SessionExpired,
    SessionLimitReached,
    SessionNotFound,
    SessionRevoked,
)
from service.redis_client.errors import UnexpectedReply
from service.sessions.session import Session

_OUTCOMES: dict[type[Exception], str] = {
    SessionNotFound: "missing",
    SessionExpired: "expired",
    SessionRevoked: "revoked",
    SessionLimitReached: "full",
    CreationContention: "contention",
    RenewalFailed: "at_maximum",
    InvalidTimeoutConfig: "in_the_past",
    PreconditionFailed: "other_revision",
    UnexpectedReply: "unknown",
}


async def attempt(verb: Callable[..., Awaitable[Session | None]], *arguments: Any, **named: Any) -> str:
    """Return `live` if the verb returns a session, `deleted` if it returns None, or the word for its error."""
    try:
        session = await verb(*arguments, **named)
    except tuple(_OUTCOMES) as error:
        return _OUTCOMES[type(error)]
    return "deleted" if session is None else "live"
