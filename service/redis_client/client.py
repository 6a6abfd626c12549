"""The protocol of a Redis client. Implementations: Pipeline, ClusterClient, ReplicatedClient, TracedClient."""

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from service.errors import StoreUnavailable
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


async def reply_or_error_each(replies: Awaitable[list[Reply]], number: int) -> list[Reply]:
    """Return the replies, or the same StoreUnavailable for each of `number` commands."""
    try:
        return await replies
    except StoreUnavailable as error:
        return [error] * number
