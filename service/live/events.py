"""Events of a session's stream."""

from typing import Literal, NamedTuple

from service.messages.message import Cancellation, Chunk, Message
from service.sessions.session import Session

SessionChange = Literal["renewed", "updated", "expiring"]


class SessionChanged(NamedTuple):
    """The session was renewed or updated, or is near its expiration."""

    change: SessionChange
    session: Session


class HistoryGap(NamedTuple):
    """Messages after this time may have been dropped from the history before they were read."""

    after_ms: int


class SessionEnded(NamedTuple):
    """The last event of a stream. `error` is SessionExpired or SessionNotFound."""

    error: Exception


class Draining(NamedTuple):
    """The last event of a stream whose replica is stopping."""


LiveEvent = Message | Chunk | Cancellation | HistoryGap | SessionChanged | SessionEnded | Draining
