"""API key entries of the form `name:scopes:sha256:digest`."""

import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from service.identifiers import parse_uuid

Scope = Literal["read", "write", "admin", "agent"]

SCOPES: tuple[Scope, ...] = ("read", "write", "admin")
"""Each scope includes the scopes before it."""

AGENT: Scope = "agent"
"""The scope of agents. `agent:<agentId>` restricts a caller to one agent."""

SCOPE_NAMES = f"{', '.join(SCOPES)}, agent or agent:<agentId>"

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Grant(NamedTuple):
    """The scopes of a caller. With an `agent_id`, it has access only to the sessions of this agent."""

    scopes: frozenset[Scope]
    agent_id: str | None = None


class ApiKeyEntry(NamedTuple):
    """A named API key, known only by the SHA-256 digest of the key."""

    name: str
    grant: Grant
    digest: bytes


def parse_api_keys(text: str) -> list[ApiKeyEntry]:
    """Parse entries separated by whitespace, with comments after `#`.

    Raises ValueError with the number and the name of a wrong entry, without its digest.
    """
    entries = [_parse_entry(number, word) for number, word in enumerate(_words(text), 1)]
    if not entries:
        raise ValueError("must hold at least one entry")
    seen = set[str | bytes]()
    for number, entry in enumerate(entries, 1):
        if entry.name in seen or entry.digest in seen:
            raise ValueError(f"entry {number} ({entry.name}): an earlier entry has the same name or the same digest")
        seen |= {entry.name, entry.digest}
    return entries


def is_key_name(word: str) -> bool:
    return _NAME.fullmatch(word) is not None


def expand_scopes(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """Return the scopes and all scopes that they include."""
    return frozenset(included for scope in scopes for included in SCOPES[: SCOPES.index(scope) + 1])


def parse_grant(words: Iterable[str]) -> Grant:
    """Parse scopes. Raises ValueError for an unknown one, and for other scopes beside `agent:<agentId>`."""
    names = list(words)
    if len(names) == 1 and names[0].startswith(f"{AGENT}:"):
        return Grant(frozenset((AGENT,)), parse_uuid(names[0].removeprefix(f"{AGENT}:")))
    if any(name.startswith(f"{AGENT}:") for name in names):
        raise ValueError("agent:<agentId> cannot be combined with other scopes")
    if not set(names) <= {*SCOPES, AGENT}:
        raise ValueError(f"scopes must be a comma-separated list of {SCOPE_NAMES}")
    scopes = expand_scopes(scope for scope in SCOPES if scope in names)
    return Grant(scopes | {AGENT} if AGENT in names else scopes)


def _words(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield from line.partition("#")[0].split()


def _parse_entry(number: int, word: str) -> ApiKeyEntry:
    name, _, rest = word.partition(":")
    scopes, _, key = rest.partition(":sha256:")
    if not is_key_name(name) or not scopes or not key:
        raise ValueError(
            f"entry {number}: must have the form name:scopes:sha256:digest, as `python -m service key` prints it"
        )
    try:
        grant = parse_grant(scopes.split(","))
    except ValueError as error:
        raise ValueError(f"entry {number} ({name}): {error}") from None
    if not _DIGEST.fullmatch(key):
        raise ValueError(f"entry {number} ({name}): must end in sha256: and 64 hex digits, not in the key itself")
    return ApiKeyEntry(name, grant, bytes.fromhex(key))
