"""A call of the store and its outcome in one word, for tests in which many calls race."""

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

_WORDS: dict[type[Exception], str] = {
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
    """`live` where the verb gives a session, `deleted` where it gives nothing, else the word of its refusal."""
    try:
        session = await verb(*arguments, **named)
    except tuple(_WORDS) as refusal:
        return _WORDS[type(refusal)]
    return "deleted" if session is None else "live"
