"""Who calls, what they may do, and what a route asks of them."""

from collections.abc import Iterable
from typing import Literal, NamedTuple, get_args

from aiohttp import web

from service.errors import Forbidden

Scope = Literal["read", "write", "admin"]

SCOPES: tuple[Scope, ...] = get_args(Scope)
"""From the least: each includes those before it."""


class Caller(NamedTuple):
    """Who is let in. With a `user_id` it sees and changes that user's sessions alone, else everyone's."""

    name: str
    scopes: frozenset[Scope]
    user_id: str | None = None
    by: Literal["key", "token"] = "key"
    """What shows it: names of keys and subjects of tokens may be alike."""

    @property
    def kind(self) -> Literal["key", "token", "user"]:
        return self.by if self.user_id is None else "user"


class Permission(NamedTuple):
    """The scope that a route asks of those who see everyone's sessions, and of a user; None: it is not for users."""

    scope: Scope
    of_users: Scope | None

    def require_met_by(self, caller: Caller) -> None:
        """Raises Forbidden."""
        scope = self.scope if caller.user_id is None else self.of_users
        if scope is None:
            raise Forbidden("This tells of everyone's sessions, or is about them; the token is of one user.")
        if scope not in caller.scopes:
            raise Forbidden(f"This needs the scope {scope!r}, which the key or token has not.", scope=scope)


READ = Permission("read", "read")
WRITE = Permission("write", "write")
ADMIN = Permission("admin", None)
LIST = Permission("admin", "read")
"""Users list their own."""
END_ALL = Permission("admin", "write")
"""Users end their own."""
COUNT = Permission("read", None)
OPEN = None
"""Everybody may: it shows no data, or is what orchestrators ask."""

CALLER = web.RequestKey("caller", Caller)
"""Where a request has who called; nowhere, where nobody is asked who they are."""


def including(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """These scopes, and those that they include."""
    return frozenset(included for scope in scopes for included in SCOPES[: SCOPES.index(scope) + 1])


def user_of(request: web.Request) -> str | None:
    """The user whose sessions are all that the caller may see; None where these are everyone's."""
    caller = request.get(CALLER)
    return None if caller is None else caller.user_id


def require_own(request: web.Request, user_id: str | None) -> None:
    """Raises Forbidden where the caller is a user, and not this one."""
    own = user_of(request)
    if own is not None and own != user_id:
        raise Forbidden("The userId must be given, and be the user that the token is of.")
