"""The protocol of a Redis client. Implementations: Pipeline, ClusterClient, ReplicatedClient, TracedClient."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Protocol

from service.errors import StoreUnavailable
from service.redis_client.errors import ScriptError
from service.redis_client.scripts import Command

Reply = Any
Fields = tuple[bytes, ...]
Read = tuple[Sequence[bytes | None], int]
"""The values of a hash's fields, and Redis's time in milliseconds, read after them."""


class RedisClient(Protocol):
    """A client for one server, a Sentinel deployment or a cluster.

    Every call has a time limit, and raises StoreUnavailable or ScriptError. Each command goes to the node that holds
    its key; a command without a key follows the command before it.
    """

    @property
    def supports_multi_slot(self) -> bool:
        """Whether one command may use keys of several slots. False for a cluster."""

    async def read_hash(self, key: str, fields: Fields) -> Read:
        """Read fields of a hash; missing fields are None. Retries once after a lost connection."""

    async def read_hashes(self, keys: Sequence[str], fields: Fields) -> list[Read]:
        """Read the same fields of several hashes."""

    async def query(self, *commands: Command) -> list[Reply]:
        """Run commands that change nothing, in no particular order. Retries once after a lost connection."""

    async def execute(self, *commands: Command) -> list[Reply]:
        """Run independent commands, in no particular order. Sends nothing twice."""

    async def execute_ordered(self, *commands: Command) -> list[Reply]:
        """Run commands one after the other. Sends nothing twice.

        Commands after a failed one may still run. Raises ScriptCacheMiss if a script was missing; an account that may
        not load scripts runs the remaining commands one at a time instead.
        """

    async def broadcast(self, *commands: Command) -> dict[str, list[Reply]]:
        """Run commands that change nothing on every primary. Returns replies by address ("" if there is one server).

        Raises nothing: errors are among the replies. Returns an empty dict if the cluster cannot be reached.
        """

    async def aclose(self) -> None:
        """Close the connections."""


async def replies_or_errors(replies: Awaitable[list[Reply]], number: int) -> list[Reply]:
    """Return the replies, or the same StoreUnavailable for each of `number` commands."""
    try:
        return await replies
    except StoreUnavailable as error:
        return [error] * number


async def readable_hashes(client: RedisClient, keys: Sequence[str], fields: Fields) -> list[Read | None]:
    """Read the same fields of several hashes. A key of another type is None."""
    try:
        return [*await client.read_hashes(keys, fields)]
    except ScriptError:
        return await asyncio.gather(*[_read_or_none(client, key, fields) for key in keys])


async def query_readable(client: RedisClient, commands: Sequence[Command]) -> list[Reply]:
    """Run commands that change nothing. The reply of a command on a key of a wrong type is None."""
    if not commands:
        return []
    try:
        return await client.query(*commands)
    except ScriptError:
        return await asyncio.gather(*[_query_or_none(client, command) for command in commands])


async def _read_or_none(client: RedisClient, key: str, fields: Fields) -> Read | None:
    try:
        return await client.read_hash(key, fields)
    except ScriptError:
        return None


async def _query_or_none(client: RedisClient, command: Command) -> Reply:
    try:
        return (await client.query(command))[0]
    except ScriptError:
        return None


class PartialFailure:
    """Collects the failures of nodes while work on other nodes continues.

    As a context manager, suppresses StoreUnavailable. It is true after a failure.
    """

    def __init__(self) -> None:
        self._first: StoreUnavailable | None = None

    def __bool__(self) -> bool:
        return self._first is not None

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if isinstance(error, StoreUnavailable):
            self._first = self._first or error
        return isinstance(error, StoreUnavailable)

    def raise_if_any(self) -> None:
        """Raise the first StoreUnavailable, if there was one."""
        if self._first is not None:
            raise self._first


async def run_all(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines concurrently. Raises the first error after all of them have finished."""
    parts = list(coroutines)
    if len(parts) == 1:  # saves creating a task
        await parts[0]
        return
    for error in await asyncio.gather(*parts, return_exceptions=True):
        if error is not None:
            raise error


async def replies_or_none(
    call: Callable[..., Awaitable[list[Reply]]], commands: Sequence[Command], failures: PartialFailure
) -> list[Reply]:
    """Run idempotent commands; the reply of an unavailable node is None. Commands may be sent twice.

    After a failure, sends commands one at a time so that one unavailable node does not hide the replies of others.
    """
    if commands and not failures:
        try:
            return await call(*commands)
        except StoreUnavailable:
            pass
    replies: list[Reply] = [None] * len(commands)

    async def run_one(index: int) -> None:
        with failures:
            (replies[index],) = await call(commands[index])

    await run_all(run_one(index) for index in range(len(commands)))
    return replies
