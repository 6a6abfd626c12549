"""How many sessions may live at once: caps for each user and each agent."""

from typing import Literal, NamedTuple

from pydantic import Field
from pydantic_settings import BaseSettings

MAX_CAP = 1_000_000
NO_CAP = 0


class Caps(NamedTuple):
    """The most live sessions per user and per agent, or NO_CAP. With `evicts`, a new session ends the least active."""

    per_user: int
    per_agent: int
    evicts: bool


class CapSettings(BaseSettings):
    """Without either number there is no cap, and the policy is of no use."""

    session_max_per_user: int | None = Field(None, ge=1, le=MAX_CAP)
    session_max_per_agent: int | None = Field(None, ge=1, le=MAX_CAP)
    session_cap_policy: Literal["deny", "evict"] = "deny"

    @property
    def caps(self) -> Caps | None:
        if self.session_max_per_user is None and self.session_max_per_agent is None:
            return None
        evicts = self.session_cap_policy == "evict"
        return Caps(self.session_max_per_user or 0, self.session_max_per_agent or 0, evicts)
