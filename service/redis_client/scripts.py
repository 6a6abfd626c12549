"""Commands and Lua scripts as values: build EVALSHA commands by name, and replace them by EVAL or SCRIPT LOAD."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

Argument = str | bytes | int
Command = tuple[Argument, ...]
Pick = Callable[[Any], Command]

_BINDING = re.compile(r"^\s*(?:local )?(\w+)\s*= (KEYS|ARGV)\[(\d+)\]", re.MULTILINE)


class Script(NamedTuple):
    """A Lua script and the names of its keys and arguments, in order."""

    name: str
    text: str
    sha: str
    keys: tuple[str, ...]
    arguments: tuple[str, ...]
    head: Command
    pick_keys: Pick
    pick_arguments: Pick

    @classmethod
    def parse(cls, name: str, text: str) -> "Script":
        """Read the names of keys and arguments from the binding block: `name = KEYS[n]`, `name = ARGV[n]`."""
        bindings = sorted((kind, int(number), bound) for bound, kind, number in _BINDING.findall(text))
        keys = tuple(bound for kind, _, bound in bindings if kind == "KEYS")
        arguments = tuple(bound for kind, _, bound in bindings if kind == "ARGV")
        sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        return cls._with_signature(name, text, sha, keys, arguments)

    @classmethod
    def _with_signature(
        cls, name: str, text: str, sha: str, keys: tuple[str, ...], arguments: tuple[str, ...]
    ) -> "Script":
        head = ("EVALSHA", sha, len(keys))
        return cls(name, text, sha, keys, arguments, head, _pick(attrgetter, keys), _pick(itemgetter, arguments))

    def command(self, keys: object, **arguments: Argument) -> Command:
        """Build the EVALSHA command. Keys are attributes of `keys`. Raises KeyError if an argument is missing."""
        return self.head + self.pick_keys(keys) + self.pick_arguments(arguments)

    def command_with_keys(self, keys: Sequence[str], **arguments: Argument) -> Command:
        """Build the EVALSHA command of a script that takes any number of keys."""
        return ("EVALSHA", self.sha, len(keys), *keys, *self.pick_arguments(arguments))

    def without(self, *names: str) -> "Script":
        """The same script called without its last keys and arguments, which are then nil in Lua."""
        keys = tuple(name for name in self.keys if name not in names)
        arguments = tuple(name for name in self.arguments if name not in names)
        return self._with_signature(self.name, self.text, self.sha, keys, arguments)


class ScriptCatalog:
    """All scripts that a client may run. `no_write_statuses`: the statuses of replies after which nothing changed."""

    def __init__(self, scripts: Iterable[Script], no_write_statuses: Iterable[bytes] = ()) -> None:
        self._scripts: dict[Argument, Script] = {script.sha: script for script in scripts}
        self._no_write_statuses = frozenset(no_write_statuses)

    def load_commands(self) -> list[Command]:
        """Build the commands that load every script into a server's script cache."""
        return [("SCRIPT", "LOAD", script.text) for script in self._scripts.values()]

    def as_eval(self, command: Command) -> Command:
        """Replace EVALSHA by EVAL, for a server that does not have the script."""
        return ("EVAL", self._scripts[command[1]].text, *command[2:])

    def command_name(self, command: Command) -> str:
        """The name of the script that a command runs, or of the command itself."""
        if command[0] == "EVALSHA" and command[1] in self._scripts:
            return self._scripts[command[1]].name
        return str(command[0])

    def wrote_nothing(self, reply: Any) -> bool:
        """Whether the reply of a script, or of a command that removes something, means that nothing changed."""
        return reply == 0 or (isinstance(reply, list) and bool(reply) and reply[0] in self._no_write_statuses)


def _pick(getter: Callable[..., Pick], names: Sequence[str]) -> Pick:
    """Pick values by name, always as a tuple: the getters of `operator` return a bare value for a single name."""
    if not names:
        return lambda _: ()
    get = getter(*names)
    return get if len(names) > 1 else lambda source: (get(source),)  # type: ignore[return-value]
