"""Named keys in a file, which may be changed while the service runs."""

import logging
import os
import time
from pathlib import Path

from service.auth.api_keys import ApiKeys, read_entries
from service.auth.scopes import Caller

LOOK_EVERY_SECONDS = 1

_log = logging.getLogger(__name__)

_Stamp = tuple[int, int, int]
"""What of a file changes with what it holds."""


class ApiKeyFile:
    """The keys of a file, read again when it has changed. One that is broken or gone leaves those it had in force."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, and ValueError where what it holds is wrong."""
        self._path = path
        self._looked_at = time.monotonic()
        self._stamp: _Stamp | None = self._stamp_now()
        self._keys = self._read()

    def caller(self, key: str) -> Caller | None:
        """Whose key it is; None where it is nobody's."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_EVERY_SECONDS:
            self._looked_at = now
            self._look()
        return self._keys.caller(key)

    def _look(self) -> None:
        """The stamp is taken first: what is written after it is seen the next time. Trouble is told once for each."""
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = self._read()
        except (OSError, ValueError) as error:
            _log.error("SESSION_API_KEYS_FILE: the keys it held stay in force: %s", why(error))
        else:
            _log.info("SESSION_API_KEYS_FILE has changed and was read again")

    def _stamp_now(self) -> _Stamp | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> ApiKeys:
        return ApiKeys(read_entries(self._path.read_text()))


def why(error: OSError | ValueError) -> str:
    """In words that repeat nothing of the file."""
    if isinstance(error, UnicodeDecodeError):
        return "is not text"
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)
