"""Callers, their scopes, and the permissions that routes require."""

from typing import Literal, NamedTuple

from service.errors import Forbidden
from service.settings.api_keys import Scope


class Caller(NamedTuple):
    """An authenticated caller. A caller with a `user_id` has access only to the sessions of this user."""

    name: str
    scopes: frozenset[Scope]
    user_id: str | None = None
    method: Literal["key", "token"] = "key"
    """How the caller authenticated. A key and a token may have the same name."""

    @property
    def kind(self) -> Literal["key", "token", "user"]:
        return self.method if self.user_id is None else "user"


class Permission(NamedTuple):
    """The scopes that a route requires."""

    scope: Scope
    """Required from callers with access to all sessions."""
    user_scope: Scope | None
    """Required from users. None: users have no access."""

    def require(self, caller: Caller) -> None:
        """Raises Forbidden unless the caller has the scope."""
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
PUBLIC = None
"""Requires no authentication: probes and documentation."""
