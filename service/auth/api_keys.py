"""Named keys, of which only hashes are known here.

A key is random, of 128 bits or more, so one round of SHA-256 hides it: slow hashes are for what people think up. Keys
are looked up by their hash. How long that takes tells nothing of use: whoever guesses cannot choose what a guess hashes
to, and the table's own hash of that is keyed by a secret of the process.
"""

import hashlib
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, cast

from service.auth.scopes import SCOPES, Caller, Scope, including

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class NewKey(NamedTuple):
    """A key, for whoever is to use it, and its entry, for the settings."""

    key: str
    entry: str


class ApiKeys:
    """Keys that stay as they are."""

    def __init__(self, callers: Mapping[bytes, Caller]) -> None:
        self._callers = callers

    def caller(self, key: str) -> Caller | None:
        """Whose key it is; None where it is nobody's."""
        return self._callers.get(_digest_of(key))


def new_key(name: str, scopes: Iterable[Scope]) -> NewKey:
    """A key of 256 random bits. It begins with what scanners for leaked secrets can be told to look for."""
    key = "ssk_" + secrets.token_urlsafe(32)
    return NewKey(key, f"{name}:{','.join(scopes)}:sha256:{_digest_of(key).hex()}")


def is_name(word: str) -> bool:
    return _NAME.fullmatch(word) is not None


def read_entries(text: str) -> dict[bytes, Caller]:
    """Who has which key, by its digest. Raises ValueError that names the entry at fault, and repeats nothing secret."""
    callers = dict[bytes, Caller]()
    names = set[str]()
    for number, entry in enumerate(_entries(text), 1):
        digest, caller = _read(number, entry)
        if caller.name in names or digest in callers:
            raise ValueError(f"entry {number} ({caller.name}): its name or its hash is that of an entry before it")
        callers[digest] = caller
        names.add(caller.name)
    if not callers:
        raise ValueError("holds no key")
    return callers


def _entries(text: str) -> Iterator[str]:
    """They stand between blanks or on lines; what follows a # is a comment."""
    for line in text.splitlines():
        yield from line.partition("#")[0].split()


def _read(number: int, entry: str) -> tuple[bytes, Caller]:
    parts = entry.split(":")
    if len(parts) != 4 or not is_name(parts[0]):
        raise ValueError(f"entry {number}: must be name:scopes:sha256:digest, as `python -m service key` writes it")
    name, scopes, kind, digest = parts
    if not set(scopes.split(",")) <= set(SCOPES):
        raise ValueError(
            f"entry {number} ({name}): its scopes must be of {', '.join(SCOPES)}, with commas between them"
        )
    if kind != "sha256" or not _DIGEST.fullmatch(digest):
        raise ValueError(f"entry {number} ({name}): its hash must be sha256: and 64 hex digits, not the key itself")
    return bytes.fromhex(digest), Caller(name, including(cast(list[Scope], scopes.split(","))))


def _digest_of(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
