"""Callers, their scopes, and the permissions that routes require."""

from typing import Literal, NamedTuple

from service.errors import Forbidden
from service.settings.api_keys import AGENT as AGENT_SCOPE
from service.settings.api_keys import Scope


class Caller(NamedTuple):
    """An authenticated caller. With a `user_id` or an `agent_id`, it has access only to their sessions."""

    name: str
    scopes: frozenset[Scope]
    user_id: str | None = None
    method: Literal["key", "token"] = "key"
    """How the caller authenticated. A key and a token may have the same name."""
    agent_id: str | None = None

    @property
    def is_agent(self) -> bool:
        """Whether the caller acts for an agent."""
        return AGENT_SCOPE in self.scopes

    @property
    def owner_id(self) -> str | None:
        """The owner of the sessions that the caller has access to. None: all sessions. See SessionStore."""
        return self.user_id if self.agent_id is None else f"agent:{self.agent_id}"

    @property
    def kind(self) -> Literal["key", "token", "user"]:
        return self.method if self.user_id is None else "user"


class Permission(NamedTuple):
    """The scopes that a route requires."""

    scope: Scope
    """Required from callers with access to all sessions."""
    user_scope: Scope | None
    """Required from users. None: users have no access."""
    allows_agents: bool = False
    """Whether callers with the scope `agent` have access."""

    def require(self, caller: Caller) -> None:
        """Raises Forbidden unless the caller has the scope."""
        if self.allows_agents and caller.is_agent:
            return
        scope = self.scope if caller.user_id is None else self.user_scope
        if scope is None:
            raise Forbidden("This request concerns the sessions of all users; a user's token does not permit it.")
        if scope not in caller.scopes:
            raise Forbidden(f"This request requires the scope {scope!r}.", scope=scope)


READ = Permission("read", "read")
WRITE = Permission("write", "write")
ADMIN = Permission("admin", None)
COUNT = Permission("read", None)
LIST = Permission("admin", "read")
"""Users list their own sessions."""
REVOKE = Permission("admin", "write")
"""Users revoke their own sessions."""
READ_AS_ANY = Permission("read", "read", allows_agents=True)
WRITE_AS_ANY = Permission("write", "write", allows_agents=True)
ANSWER = Permission("agent", None)
"""Agents answer messages."""
TRANSCRIPT = Permission("admin", None, allows_agents=True)
PUBLIC = None
"""Requires no authentication: probes and documentation."""
