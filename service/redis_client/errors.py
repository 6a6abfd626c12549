"""Errors that a Redis client raises, and the conversion of Redis's error replies to them."""

from collections.abc import Sequence
from typing import Any

from redis.exceptions import ReadOnlyError, ResponseError

from service.errors import StoreUnavailable

_UNAVAILABLE_CODES = {
    "OOM",
    "NOREPLICAS",
    "MISCONF",
    "BUSY",
    "LOADING",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "NOPERM",
    "NOAUTH",
}
_REDIRECTION_CODES = {"MOVED", "ASK", "TRYAGAIN"}


class ScriptError(Exception):
    """A script failed, or a key has the wrong type."""


class UnexpectedReply(Exception):
    """A script returned a status that its caller does not handle."""


class CommandRejected(StoreUnavailable):
    """Redis rejected a command because of its own state: out of memory, loading, too few replicas, not permitted."""


class UnderReplicated(CommandRejected):
    """Redis executed a change, but too few replicas acknowledged it in time. `replies` are Redis's replies."""

    def __init__(self, cause: str, replies: Sequence[Any]) -> None:
        super().__init__(cause)
        self.replies = replies


class ServerDemoted(CommandRejected):
    """The server is no longer a primary. It rejects writes, and its data may be stale."""


class Redirected(StoreUnavailable):
    """A cluster node does not hold the command's slot, or not all of it. The command was not executed."""


class ScriptCacheMiss(StoreUnavailable):
    """A script was not in Redis's script cache. It is now; other commands of the batch may have been executed."""


def to_client_error(error: ResponseError) -> Exception:
    """Convert an error reply to an error of this module."""
    message = str(error)
    if isinstance(error, ReadOnlyError):
        return ServerDemoted(message)
    if is_redirection(error):
        return Redirected(message)
    if message.startswith("WRONGTYPE") or ("user_script:" in message and not _is_about_the_server(error)):
        return ScriptError(message)
    return CommandRejected(message)


def is_redirection(reply: Any) -> bool:
    """Whether a cluster node redirects the command, or requests a retry."""
    return isinstance(reply, ResponseError) and str(reply).partition(" ")[0] in _REDIRECTION_CODES


def _is_about_the_server(error: ResponseError) -> bool:
    """Whether an error inside a script comes from the server's state. redis-py has subclasses for some of these."""
    return type(error) is not ResponseError or str(error).partition(" ")[0] in _UNAVAILABLE_CODES
