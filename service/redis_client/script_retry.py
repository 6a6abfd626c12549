"""Retry commands whose script was missing from Redis's script cache."""

from collections.abc import Awaitable, Callable, Sequence

from redis.exceptions import NoScriptError, ResponseError

from service.redis_client.client import Reply
from service.redis_client.errors import ScriptCacheMiss, to_client_error
from service.redis_client.scripts import Command, ScriptCatalog

Send = Callable[[Sequence[Command]], Awaitable[list[Reply]]]
"""Sends commands and returns their replies, errors included."""


async def send_with_script_retry(send: Send, commands: Sequence[Command], scripts: ScriptCatalog) -> list[Reply]:
    """Send independent commands, and send missing scripts again as EVAL. Raises the first error among the replies."""
    replies = await send(commands) if commands else []
    return await retry_missing_scripts(send, commands, replies, scripts) if has_error(replies) else replies


def has_error(replies: Sequence[Reply]) -> bool:
    for reply in replies:  # noqa: SIM110  (a generator would cost more than the whole loop)
        if isinstance(reply, ResponseError):
            return True
    return False


async def retry_missing_scripts(
    send: Send, commands: Sequence[Command], replies: list[Reply], scripts: ScriptCatalog
) -> list[Reply]:
    """Send independent commands again as EVAL if their script was missing. Raises the first error that remains."""
    return _without_errors(await _send_missing_as_eval(send, commands, replies, scripts))


async def retry_missing_scripts_in_order(
    send: Send, commands: Sequence[Command], replies: list[Reply], scripts: ScriptCatalog
) -> list[Reply]:
    """Load all scripts and raise ScriptCacheMiss if one was missing: a retry would run it after its successors.

    An account without permission for SCRIPT LOAD runs the remaining commands one at a time, as EVAL.
    """
    if not _has_missing_script(replies):
        return _without_errors(replies)
    loaded = await send(scripts.load_commands())
    if _is_loading_forbidden(loaded):
        return await _execute_one_by_one(send, commands, replies, scripts)
    _without_errors(loaded)
    raise ScriptCacheMiss("a script was missing from Redis's script cache, for example after a restart; it is loaded")


async def _execute_one_by_one(
    send: Send, commands: Sequence[Command], replies: list[Reply], scripts: ScriptCatalog
) -> list[Reply]:
    """Repeat the commands from the first missing script on, provided none of those was executed."""
    first = next(index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError))
    if not all(isinstance(reply, ResponseError) for reply in replies[first:]):
        _without_errors(await _send_missing_as_eval(send, commands, replies, scripts))
        raise ScriptCacheMiss("a script was missing from Redis's script cache; it ran after its successors")
    results = _without_errors(replies[:first])
    for command in commands[first:]:
        results += await send_with_script_retry(send, [command], scripts)
    return results


async def _send_missing_as_eval(
    send: Send, commands: Sequence[Command], replies: list[Reply], scripts: ScriptCatalog
) -> list[Reply]:
    missing = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if not missing:
        return replies
    retried = dict(zip(missing, await send([scripts.as_eval(commands[index]) for index in missing]), strict=True))
    return [retried.get(index, reply) for index, reply in enumerate(replies)]


def _is_loading_forbidden(loaded: Sequence[Reply]) -> bool:
    """Whether the account may not run SCRIPT LOAD, or the server has no such command."""
    first = str(loaded[0]) if isinstance(loaded[0], ResponseError) else ""
    return first.startswith(("NOPERM", "ERR unknown command"))


def _has_missing_script(replies: Sequence[Reply]) -> bool:
    return any(isinstance(reply, NoScriptError) for reply in replies)


def _without_errors(replies: list[Reply]) -> list[Reply]:
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise to_client_error(reply)
    return replies
