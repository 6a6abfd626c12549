"""The Lua scripts: each verb is one file beside this one, run after the clock and, where it is of a session, the
prelude; where it lists an id, after what says how.

A script's binding block (`name = KEYS[n]`, `name = ARGV[n]`) is its signature: it is read from the file, and callers
give keys and arguments by those names.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from service.sessions.keys import SessionKeys

Argument = str | bytes | int
Command = tuple[Argument, ...]
Pick = Callable[[Any], Command]

_HMGET = re.compile(r"redis\.call\('HMGET', keys\.session,([^)]*)\)")
_LISTS = re.compile(r"\badd_to_owner_index\(")
_OF_A_SESSION = re.compile(r"^\s*session\s*= KEYS\[", re.MULTILINE)
_BINDING = re.compile(r"^\s*(?:local )?(\w+)\s*= (KEYS|ARGV)\[(\d+)\]", re.MULTILINE)


class Script(NamedTuple):
    """A Lua script with the names of what it takes, in their order."""

    name: str
    text: str
    sha: str
    keys: tuple[str, ...]
    arguments: tuple[str, ...]
    head: Command
    keys_of: Pick
    arguments_of: Pick

    def command(self, keys: object, **arguments: Argument) -> Command:
        """The EVALSHA of this script: keys are attributes of `keys`, by name. An argument left out is a KeyError."""
        return self.head + self.keys_of(keys) + self.arguments_of(arguments)

    def without(self, *names: str) -> "Script":
        """The same script, told nothing of its last keys and arguments: there they are nil."""
        keys = tuple(name for name in self.keys if name not in names)
        arguments = tuple(name for name in self.arguments if name not in names)
        return _signed(self.name, self.text, self.sha, keys, arguments)

    def command_over(self, keys: Sequence[str], **arguments: Argument) -> Command:
        """The same of a script that takes as many keys as it is given, and so names none of them."""
        return ("EVALSHA", self.sha, len(keys), *keys, *self.arguments_of(arguments))


def as_eval(command: Command) -> Command:
    """The EVAL that does what an EVALSHA asked of a server that did not know the script."""
    return ("EVAL", _texts()[command[1]], *command[2:])


def script_load_commands() -> list[Command]:
    """The commands that make a server know every script."""
    return [("SCRIPT", "LOAD", script.text) for script in _ALL]


def command_name(command: Command) -> str:
    """The script that a command runs, or the command itself."""
    return _names().get(command[1], "EVALSHA") if command[0] == "EVALSHA" else str(command[0])


def load(name: str) -> Script:
    """The script of that name. What it does not need it does not bring along: a server makes it anew at each run."""
    own = _file(name)
    shared = [*(["prelude"] if _OF_A_SESSION.search(own) else []), *(["owner_index"] if _LISTS.search(own) else [])]
    text = "\n".join([*map(_file, ["clock", *shared]), own])
    bound = sorted((kind, int(number), name) for name, kind, number in _BINDING.findall(text))
    keys = tuple(name for kind, _, name in bound if kind == "KEYS")
    arguments = tuple(name for kind, _, name in bound if kind == "ARGV")
    sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return _signed(name, text, sha, keys, arguments)


def _signed(name: str, text: str, sha: str, keys: tuple[str, ...], arguments: tuple[str, ...]) -> Script:
    return Script(
        name,
        text,
        sha,
        keys,
        arguments,
        head=("EVALSHA", sha, len(keys)),
        keys_of=_getter_of(keys),
        arguments_of=_all(itemgetter, arguments),
    )


def _getter_of(keys: tuple[str, ...]) -> Pick:
    """Scripts of a session take the first of its keys, as many as they need: a slice is got at once."""
    return itemgetter(slice(len(keys))) if keys == SessionKeys._fields[: len(keys)] else _all(attrgetter, keys)


def _all(getter: Callable[..., Pick], names: Sequence[str]) -> Pick:
    """What gets all of `names`, in their order; of less than two a getter of the library gives no tuple."""
    if not names:
        return lambda _: ()
    get = getter(*names)
    return get if len(names) > 1 else lambda source: (get(source),)  # type: ignore[return-value]


def _file(name: str) -> str:
    return (resources.files(__package__) / f"{name}.lua").read_text()


FIELDS = tuple(name.encode() for name in re.findall(r"'(\w+)'", _HMGET.findall(_file("prelude"))[0]))
"""The fields of a session's hash, in the order of their values in the scripts' answers: as the prelude reads them."""

CREATE_ONCE = load("create")
CREATE = CREATE_ONCE.without("record", "fingerprint", "record_lifetime_ms")
ADD_TO_INDEX = load("add_to_index")
HEARTBEAT = load("heartbeat")
RENEW = load("renew")
UPDATE_TIMEOUT = load("update_timeout")
UPDATE_METADATA = load("update_metadata")
TAKE_BACK = load("delete")
DELETE = TAKE_BACK.without("record")
SWEEP = load("sweep")
LIST = load("list")
COUNT = load("count")
REVOKE = load("revoke")
PUT_POLICY = load("put_policy")
MARK_LOST = load("mark_lost")
EXPIRED = load("expired")
STATUS = load("status")
REMOVE_FROM_INDEX = load("remove_from_index")
RATE_LIMIT = load("rate_limit")
ADD_WITHIN_CAPS = load("add_within_caps")
EVICT = load("evict")
AWAIT_REPLICATION = load("await_replication")


_ALL = (
    *(
        CREATE,
        ADD_TO_INDEX,
        HEARTBEAT,
        RENEW,
        UPDATE_TIMEOUT,
        UPDATE_METADATA,
        DELETE,
        SWEEP,
        LIST,
        COUNT,
        REVOKE,
        PUT_POLICY,
        MARK_LOST,
    ),
    *(EXPIRED, STATUS, REMOVE_FROM_INDEX, RATE_LIMIT, ADD_WITHIN_CAPS, EVICT, AWAIT_REPLICATION),
)


@cache
def _texts() -> dict[Argument, str]:
    return {script.sha: script.text for script in _ALL}


@cache
def _names() -> dict[Argument, str]:
    return {script.sha: script.name for script in _ALL}
