"""The one seam to Redis: commands go out, replies come back, and every failure has one of two names.

StoreUnavailable says that Redis did not do what was asked; ScriptFault that a script of ours broke.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

from service.errors import StoreUnavailable
from service.sessions.scripts import Command, as_eval, script_load_commands

_OUTAGES = {"OOM", "NOREPLICAS", "MISCONF", "BUSY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOPERM", "NOAUTH"}
_REDIRECTIONS = {"MOVED", "ASK", "TRYAGAIN"}
_WROTE_NOTHING = {
    b"missing",
    b"lost",
    b"expired",
    b"taken",
    b"repeated",
    b"at_maximum",
    b"in_the_past",
    b"changed_meanwhile",
    b"other_revision",
    b"other",
    b"active",
    b"full",
}

Reply = Any
Fields = tuple[bytes, ...]
Read = tuple[Sequence[bytes | None], int]
Send = Callable[[Sequence[Command]], Awaitable[list[Reply]]]


class ScriptError(Exception):
    """A script of ours failed, or met a key of the wrong type."""


class UnexpectedReply(Exception):
    """A script answered in a word that its caller does not know."""


class CommandRejected(StoreUnavailable):
    """Redis answered, with an error that is not ours: out of memory, loading, without its replicas, not allowed."""


class UnderReplicated(CommandRejected):
    """Redis did what it was asked, and too few replicas had it in time. `replies` are what it answered."""

    def __init__(self, why: str, replies: Sequence[Reply]) -> None:
        super().__init__(why)
        self.replies = replies


class ServerDemoted(CommandRejected):
    """The server takes no changes any more; what is read from it may be stale."""


class Redirected(StoreUnavailable):
    """A server of a cluster that does not hold the slot of a command, or not all of it: nothing has been done."""


class ScriptCacheMiss(StoreUnavailable):
    """Redis did not know a script that was one of an order; it does now. The others may have been carried out."""


class RedisClient(Protocol):
    """A way to Redis. Every call is bounded in time, and raises StoreUnavailable or ScriptFault.

    A command goes where its key lies; one that has none goes where the one before it goes.
    """

    @property
    def supports_multi_slot(self) -> bool:
        """Whether one command may have keys of several slots: everywhere but in a cluster."""

    async def read_hash(self, key: str, fields: Fields) -> Read:
        """Fields of a hash (each None where there is none) and an instant of Redis's clock, in milliseconds, after it.

        Where the connection breaks it is asked for once more.
        """

    async def read_hashes(self, keys: Sequence[str], fields: Fields) -> list[Read]:
        """The same of many hashes."""

    async def query(self, *commands: Command) -> list[Reply]:
        """The replies to commands that change nothing, in no order among servers; asked once more like `read`."""

    async def execute(self, *commands: Command) -> list[Reply]:
        """The replies to commands that stand alone, in no order among servers. Nothing is sent twice."""

    async def execute_ordered(self, *commands: Command) -> list[Reply]:
        """The replies to commands that are carried out one after the other. Nothing is sent twice.

        Where one is answered with an error those behind it may have been carried out all the same: also where a script
        was not known, which raises ScriptsForgotten. An account that may not load scripts need not: then each command
        that is left goes by itself.
        """

    async def broadcast(self, *commands: Command) -> dict[str, list[Reply]]:
        """What each server replies to commands that change nothing, by its address; of a cluster that is each primary.

        Nothing is raised: an error reply stands in its place, and of one that does not answer each is StoreUnavailable;
        of a cluster that cannot be found there is nothing.
        Where there is but one server its address is empty.
        """

    async def aclose(self) -> None:
        """Let go of the connections."""


async def reply_or_error_each(replies: Awaitable[list[Reply]], number: int) -> list[Reply]:
    """So many replies; StoreUnavailable in the place of each where there are none."""
    try:
        return await replies
    except StoreUnavailable as error:
        return [error] * number


async def send_with_script_retry(send: Send, commands: Sequence[Command]) -> list[Reply]:
    """The replies to `commands`; a script that the server did not know is sent once more, as text.

    Raises the first error among them, in the names of this seam.
    """
    replies = await send(commands) if commands else []
    return await retry_missing_scripts(send, commands, replies) if has_error(replies) else replies


def has_error(replies: Sequence[Reply]) -> bool:
    for reply in replies:  # noqa: SIM110  (a generator would cost more than all of it)
        if isinstance(reply, ResponseError):
            return True
    return False


async def retry_missing_scripts(send: Send, commands: Sequence[Command], replies: list[Reply]) -> list[Reply]:
    """What `carried_out` makes of replies that hold an error."""
    return _without_errors(await _known_by_now(send, commands, replies))


async def retry_missing_scripts_in_order(send: Send, commands: Sequence[Command], replies: list[Reply]) -> list[Reply]:
    """The same of commands in an order, which a script that is sent once more would come too late for.

    Where the server did not know one it is told all of them, and ScriptsForgotten is raised. Where it may not be told,
    it learns each by carrying it out.
    """
    if not _is_a_script_unknown(replies):
        return _without_errors(replies)
    loaded = await send(script_load_commands())
    if _is_loading_forbidden(loaded):
        return await _carried_out_one_by_one(send, commands, replies)
    _without_errors(loaded)
    raise ScriptCacheMiss("Redis did not know a script, as after a restart; it does now")


async def _carried_out_one_by_one(send: Send, commands: Sequence[Command], replies: list[Reply]) -> list[Reply]:
    """The replies with those from the first unknown script on replaced, unless what is behind it came before it.

    Raises the first error, and nothing behind that is sent.
    """
    first = next(place for place, reply in enumerate(replies) if isinstance(reply, NoScriptError))
    if not all(isinstance(reply, ResponseError) for reply in replies[first:]):
        _without_errors(await _sent_as_text(send, commands, replies))
        raise ScriptCacheMiss("Redis did not know a script when it was its turn; it does now")
    found = _without_errors(replies[:first])
    for command in commands[first:]:
        found += await send_with_script_retry(send, [command])
    return found


def _is_loading_forbidden(loaded: Sequence[Reply]) -> bool:
    """Whether the account may not load scripts, or nobody may."""
    first = str(loaded[0]) if isinstance(loaded[0], ResponseError) else ""
    return first.startswith(("NOPERM", "ERR unknown command"))


def _is_a_script_unknown(replies: Sequence[Reply]) -> bool:
    return any(isinstance(reply, NoScriptError) for reply in replies)


def _without_errors(replies: list[Reply]) -> list[Reply]:
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise to_client_error(reply)
    return replies


async def _known_by_now(send: Send, commands: Sequence[Command], replies: list[Reply]) -> list[Reply]:
    """The replies, those of scripts that were unknown replaced."""
    return await _sent_as_text(send, commands, replies) if _is_a_script_unknown(replies) else replies


async def _sent_as_text(send: Send, commands: Sequence[Command], replies: list[Reply]) -> list[Reply]:
    """The replies with those of unknown scripts replaced; what had been carried out is not sent again."""
    unknown = [place for place, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    again = await send([as_eval(commands[place]) for place in unknown])
    return [again[unknown.index(place)] if place in unknown else reply for place, reply in enumerate(replies)]


def to_client_error(error: ResponseError) -> Exception:
    """An error reply in the names of this seam."""
    message = str(error)
    if isinstance(error, ReadOnlyError):
        return ServerDemoted(message)
    if is_redirection(error):
        return Redirected(message)
    if message.startswith("WRONGTYPE") or ("user_script:" in message and not _says_outage(error)):
        return ScriptError(message)
    return CommandRejected(message)


def wrote_nothing(reply: Reply) -> bool:
    """Whether a script, or a command that takes something out, answered that it wrote nothing."""
    return reply == 0 or (isinstance(reply, list) and bool(reply) and reply[0] in _WROTE_NOTHING)


def is_redirection(reply: Reply) -> bool:
    """Whether a reply is a cluster's way to say: not here, or not yet."""
    return isinstance(reply, ResponseError) and str(reply).partition(" ")[0] in _REDIRECTIONS


def _says_outage(error: ResponseError) -> bool:
    """Whether an error out of a script tells of the server's state: redis-py has classes for some, others a code."""
    return type(error) is not ResponseError or str(error).partition(" ")[0] in _OUTAGES
