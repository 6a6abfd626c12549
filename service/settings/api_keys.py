"""API key entries of the form `name:scopes:sha256:digest`."""

import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, cast, get_args

Scope = Literal["read", "write", "admin"]

SCOPES: tuple[Scope, ...] = get_args(Scope)
"""Each scope includes the scopes before it."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class ApiKeyEntry(NamedTuple):
    """A named API key, known only by the SHA-256 digest of the key."""

    name: str
    scopes: frozenset[Scope]
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


def _words(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield from line.partition("#")[0].split()


def _parse_entry(number: int, word: str) -> ApiKeyEntry:
    parts = word.split(":")
    if len(parts) != 4 or not is_key_name(parts[0]):
        raise ValueError(
            f"entry {number}: must have the form name:scopes:sha256:digest, as `python -m service key` prints it"
        )
    name, scopes, algorithm, digest = parts
    if not set(scopes.split(",")) <= set(SCOPES):
        raise ValueError(f"entry {number} ({name}): scopes must be a comma-separated list of {', '.join(SCOPES)}")
    if algorithm != "sha256" or not _DIGEST.fullmatch(digest):
        raise ValueError(f"entry {number} ({name}): must end in sha256: and 64 hex digits, not in the key itself")
    return ApiKeyEntry(name, expand_scopes(cast(list[Scope], scopes.split(","))), bytes.fromhex(digest))
