"""How many files this process may have open: each connection is one."""

import logging
import resource

_OTHER_FILES = 512
"""What is open beside clients' connections: those to Redis, the log, the event loop's own."""

_log = logging.getLogger(__name__)


def room_for(connections: int) -> int:
    """Have the system allow so many; how many there is room for, with a warning where these are fewer."""
    wanted = connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _is_below(soft, wanted):
        soft = hard if _is_below(hard, wanted) else wanted
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if not _is_below(soft, wanted):
        return connections
    room = max(soft - _OTHER_FILES, 1)
    _log.warning("SESSION_MAX_CONNECTIONS=%d: there is room for %d, for want of files (ulimit -n)", connections, room)
    return room


def _is_below(limit: int, wanted: int) -> bool:
    return limit != resource.RLIM_INFINITY and limit < wanted
