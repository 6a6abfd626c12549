"""Processes that the service starts, and that must not outlive it."""

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


DIE_WITH_PARENT = _die_with_parent if sys.platform == "linux" else None
"""For `preexec_fn`. Only Linux ends a process whose parent was killed; elsewhere it may outlive it."""
