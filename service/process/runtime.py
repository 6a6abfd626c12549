"""Limits and options of the process itself: open files, garbage collection, child processes."""

import ctypes
import gc
import logging
import resource
import signal
import sys

OTHER_FILES = 512
"""Open files other than the connections of clients: connections to Redis, the log, the event loop."""

GC_THRESHOLD = 10_000
"""New objects before a collection of the youngest generation. Requests create almost no cycles."""

_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)
_log = logging.getLogger(__name__)


def raise_open_file_limit(connections: int) -> int:
    """Return how many connections the limit of open files allows, at most `connections`. Raises the soft limit."""
    files = connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _is_below(soft, files):
        soft = hard if _is_below(hard, files) else files
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if not _is_below(soft, files):
        return connections
    allowed = max(soft - OTHER_FILES, 1)
    _log.warning(
        "SESSION_MAX_CONNECTIONS=%d: the limit of open files (ulimit -n) allows %d connections", connections, allowed
    )
    return allowed


def tune_garbage_collection() -> None:
    """Exclude all present objects from collections, and collect less often. Call it after the startup.

    A full collection takes about 40 ms, during which no request is answered.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 10, 10)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


DIE_WITH_PARENT = _die_with_parent if sys.platform == "linux" else None
"""A `preexec_fn`: Linux kills the child process when its parent is killed. Other systems do not."""


def _is_below(limit: int, files: int) -> bool:
    return limit != resource.RLIM_INFINITY and limit < files
