"""API keys of callers. Only SHA-256 digests of keys are stored.

One round of SHA-256 is enough, because a key has 256 random bits. A lookup by digest leaks no timing information: a
caller cannot choose the digest of a guessed key.
"""

import hashlib
import logging
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

from service.auth.scopes import Caller
from service.settings.api_keys import ApiKeyEntry, parse_api_keys

CHECK_INTERVAL_SECONDS = 1
"""A key file is checked for changes this often."""

MAX_PAUSE_SECONDS = 60
"""The longest pause after unexpected errors."""

KEY_PREFIX = "ssk_"
"""Lets scanners for leaked secrets recognize keys."""

_log = logging.getLogger(__name__)

_FileState = tuple[int, int, int]
"""Modification time, size and inode of a file."""


class NewKey(NamedTuple):
    """A key, and its entry for SESSION_API_KEYS."""

    key: str
    entry: str


def new_key(name: str, scopes: Iterable[str]) -> NewKey:
    """Create a key of 256 random bits."""
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    return NewKey(key, f"{name}:{','.join(scopes)}:sha256:{_digest(key).hex()}")


class ApiKeys:
    """A fixed set of keys."""

    def __init__(self, entries: str) -> None:
        """Raises ValueError for wrong entries."""
        self._callers = {entry.digest: _caller_of(entry) for entry in parse_api_keys(entries)}

    def find_caller(self, key: str) -> Caller | None:
        return self._callers.get(_digest(key))

    def start(self) -> None: ...

    def close(self) -> None: ...


class ApiKeyFile:
    """The keys of a file. A changed file is loaded again; if it is invalid, the previous keys stay valid.

    A thread reads the file, because a network file system may not respond.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError for an unreadable file and ValueError for wrong entries."""
        self._path = path
        self._state: _FileState | None = self._current_state()
        self._keys = self._load()
        self._is_closed = Event()

    def find_caller(self, key: str) -> Caller | None:
        return self._keys.find_caller(key)

    def start(self) -> None:
        """Check the file for changes regularly, until `close` is called."""
        Thread(target=self._check_regularly, name="api-keys", daemon=True).start()

    def close(self) -> None:
        self._is_closed.set()

    def _check_regularly(self) -> None:
        pause_seconds: float = CHECK_INTERVAL_SECONDS
        while not self._is_closed.wait(pause_seconds):
            try:
                self.reload_if_changed()
                pause_seconds = CHECK_INTERVAL_SECONDS
            except Exception:
                _log.exception("SESSION_API_KEYS_FILE: the check for changes failed and continues")
                pause_seconds = min(2 * pause_seconds, MAX_PAUSE_SECONDS)

    def reload_if_changed(self) -> None:
        """Load the file again if it has changed. Logs errors of the file."""
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
        return ApiKeys(_read(self._path))


def _read(path: Path) -> str:
    """Read a regular file. A pipe could block, and can be read only once although every worker reads it."""
    with open(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("must be a regular file, not a pipe or a device; set SESSION_API_KEYS instead")
        return file.read()


def describe_file_error(error: OSError | ValueError) -> str:
    """Describe why a key file could not be loaded, without any of its contents."""
    if isinstance(error, UnicodeDecodeError):
        return "is not text"
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)


def _caller_of(entry: ApiKeyEntry) -> Caller:
    return Caller(entry.name, entry.grant.scopes, agent_id=entry.grant.agent_id)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
