"""Caps: how many sessions of one user, and of one agent, may live at once."""

from typing import Literal, NamedTuple

from service.sessions.keys import Keys
from service.settings.sessions import Caps


class Owner(NamedTuple):
    """Whom sessions are counted for, the most that they may have, and the key of the lookup that lists those."""

    kind: Literal["user", "agent"]
    id: str
    cap: int
    owner_index: str


def owners_of(caps: Caps, keys: Keys, agent_id: str, user_id: str) -> list[Owner]:
    """A session's: its user first, who has a place of an agent's only where they may have one themselves."""
    return [
        Owner("user", user_id, caps.per_user, keys.user(user_id)),
        Owner("agent", agent_id, caps.per_agent, keys.agent(agent_id)),
    ]
