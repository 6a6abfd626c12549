"""API keys of callers. Only SHA-256 digests of keys are stored.

One round of SHA-256 is enough, because a key has 256 random bits. A lookup by digest leaks no timing information: a
caller cannot choose the digest of a guessed key.
"""

import hashlib
import logging
import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from service.auth.scopes import Caller
from service.settings.api_keys import Scope, parse_api_keys

CHECK_INTERVAL_SECONDS = 1
"""A key file is checked for changes at most this often."""

KEY_PREFIX = "ssk_"
"""Lets scanners for leaked secrets recognize keys."""

_log = logging.getLogger(__name__)

_FileState = tuple[int, int, int]
"""Modification time, size and inode of a file."""


class NewKey(NamedTuple):
    """A key, and its entry for SESSION_API_KEYS."""

    key: str
    entry: str


def new_key(name: str, scopes: Iterable[Scope]) -> NewKey:
    """Create a key of 256 random bits."""
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    return NewKey(key, f"{name}:{','.join(scopes)}:sha256:{_digest(key).hex()}")


class ApiKeys:
    """A fixed set of keys."""

    def __init__(self, entries: str) -> None:
        """Raises ValueError for wrong entries."""
        self._callers = {entry.digest: Caller(entry.name, entry.scopes) for entry in parse_api_keys(entries)}

    def find_caller(self, key: str) -> Caller | None:
        return self._callers.get(_digest(key))


class ApiKeyFile:
    """The keys of a file. A changed file is loaded again; if it is invalid, the previous keys stay valid."""

    def __init__(self, path: Path) -> None:
        """Raises OSError for an unreadable file and ValueError for wrong entries."""
        self._path = path
        self._checked_at = time.monotonic()
        self._state: _FileState | None = self._current_state()
        self._keys = self._load()

    def find_caller(self, key: str) -> Caller | None:
        now = time.monotonic()
        if now - self._checked_at >= CHECK_INTERVAL_SECONDS:
            self._checked_at = now
            self._reload_if_changed()
        return self._keys.find_caller(key)

    def _reload_if_changed(self) -> None:
        state = self._current_state()  # before the read, so that a later write is noticed next time
        if state == self._state:
            return
        self._state = state
        try:
            self._keys = self._load()
        except (OSError, ValueError) as error:
            _log.error("SESSION_API_KEYS_FILE: the previous keys stay valid: %s", describe_file_error(error))
        else:
            _log.info("SESSION_API_KEYS_FILE: loaded changed keys")

    def _current_state(self) -> _FileState | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _load(self) -> ApiKeys:
        return ApiKeys(self._path.read_text())


def describe_file_error(error: OSError | ValueError) -> str:
    """Describe why a key file could not be loaded, without any of its contents."""
    if isinstance(error, UnicodeDecodeError):
        return "is not text"
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
