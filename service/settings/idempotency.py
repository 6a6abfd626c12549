"""How sessions come to be: the ids that they are given, and how long a creation can be repeated."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings

IdFormat = Literal["uuid", "hex128", "hex256"]
"""A UUIDv4, which has 122 random bits, or 128 or 256 random bits as hex digits."""

_A_YEAR = 525_600
_SHORTEST = 0.001


class CreationSettings(BaseSettings):
    """What is up to the service when a client opens a session."""

    session_id_format: IdFormat = "uuid"
    session_idempotency_minutes: float = Field(1440, ge=_SHORTEST, le=_A_YEAR, allow_inf_nan=False)

    @property
    def record_lifetime_ms(self) -> int:
        return round(self.session_idempotency_minutes * 60_000)
