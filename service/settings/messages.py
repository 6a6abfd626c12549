"""Settings of messages and of the inboxes of agents."""

from pydantic import Field
from pydantic_settings import BaseSettings

MAX_MESSAGE_LENGTH = 16_000
"""The largest limit of a message, in UTF-16 units: three bytes each fit into the body of a request."""


class MessageSettings(BaseSettings):
    """Lengths are UTF-16 units, as in JavaScript. With 0 messages per session, messages are off."""

    session_max_message_length: int = Field(4000, ge=1, le=MAX_MESSAGE_LENGTH)
    session_max_messages: int = Field(1000, ge=0, le=100_000)
    session_message_wait_seconds: float = Field(25, ge=0.05, le=600, allow_inf_nan=False)
    session_inbox_lease_seconds: float = Field(60, ge=0.05, le=3600, allow_inf_nan=False)
