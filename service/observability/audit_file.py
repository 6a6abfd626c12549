"""A file that the audit is appended to, and that may be moved away under it, as rotation does."""

import logging
import os
import stat
import time
from pathlib import Path

_TELL_EVERY_SECONDS = 60

_log = logging.getLogger(__name__)


class AuditFile:
    """Of one that is made here nobody but its owner reads. Its descriptor stays the same, and is never closed: a thread
    that cannot write to a disk may outlast everybody else.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError, also where it is there and is no file: a pipe without a reader would be waited for."""
        self._path = path
        self._file = _opened(path)
        self._told_at = float("-inf")

    def fileno(self) -> int:
        return self._file

    def follow(self) -> None:
        """Go on in a new file where the old one was moved or removed; in that where none can be made."""
        try:
            if self._was_moved():
                new = _opened(self._path)
                os.dup2(new, self._file, inheritable=False)
                os.close(new)
        except OSError as error:
            self.tell(error)

    def tell(self, trouble: OSError) -> None:
        """In the log, once a minute while it lasts."""
        if time.monotonic() - self._told_at >= _TELL_EVERY_SECONDS:
            self._told_at = time.monotonic()
            _log.error("the audit log cannot be written: %s", trouble.strerror or trouble)

    def _was_moved(self) -> bool:
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return True
        return not os.path.samestat(there, os.fstat(self._file))


def _opened(path: Path) -> int:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o600)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError("is no file")
    return file
