"""The audit: who did what, when and from where, in a line each; also who was not let in.

Sessions, agents and users are told by their hashes, as in the log; keys, tokens and metadata never.
"""

import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Literal, NamedTuple

from service.observability.log import REQUEST_ID
from service.shared_secret import SharedSecret
from service.timestamps import iso

MARK = "audit"
"""What `log` is in each of its lines, by which they are told from the log's own where they stand among them."""

_LONGEST_NAME = 200

Kind = Literal["key", "token", "user", "anonymous", "service", "sweeper", "terminal"]
Fact = str | int | bool | None


class Origin(NamedTuple):
    """Who does something, and from which address. A user's `name` is their id; a key's or a token's its own."""

    kind: Kind
    name: str = ""
    address: str | None = None


ORIGIN: ContextVar[Callable[[], Origin]] = ContextVar("origin")
"""Of the request that is being answered, where what it does may be told; it is only asked where that is."""

Render = Callable[[dict[str, Fact]], str]


class Audit:
    """Writes audit lines. Without a request, the actor is `doer`."""

    def __init__(
        self,
        secret: SharedSecret,
        render: Render,
        leave: Callable[[str], None],
        doer: Origin,
        worker: int | None = None,
    ) -> None:
        self._hashed = secret.hash_id
        self._render = render
        self._leave = leave
        self._doer = lambda: doer
        self._facts: dict[str, Fact] = {} if worker is None else {"worker": worker}

    def tell(
        self,
        action: str,
        *,
        session: str | None = None,
        agent: str | None = None,
        user: str | None = None,
        outcome: str = "done",
        origin: Callable[[], Origin] | None = None,
        **facts: Fact,
    ) -> None:
        """The ids are not hashed yet. The default `origin` is that of the current request."""
        who = (origin or ORIGIN.get(self._doer))()
        members: dict[str, Fact] = {
            "timestamp": iso(time.time_ns() // 1_000_000),
            "log": MARK,
            "action": action,
            "outcome": outcome,
            "actor": self._actor(who),
            "address": who.address,
            "request_id": REQUEST_ID.get(None),
            "session": session and self._hashed(session),
            "agent": agent and self._hashed(agent),
            "user": user and self._hashed(user),
            **facts,
            **self._facts,
        }
        self._leave(self._render(_known(members) if None in members.values() else members))

    def _actor(self, who: Origin) -> str:
        if not who.name:
            return who.kind
        return f"{who.kind}:{self._hashed(who.name) if who.kind == 'user' else _printable(who.name)}"


def _printable(name: str) -> str:
    """An issuer of tokens may call its services anything: no line ends within a name, and no terminal obeys one."""
    name = name[:_LONGEST_NAME]
    return name if name.isprintable() else name.encode("unicode_escape").decode()


def _known(members: dict[str, Fact]) -> dict[str, Fact]:
    return {name: value for name, value in members.items() if value is not None}
