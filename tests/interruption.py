"""A lane on which something happens between two calls: races without a race."""

from collections.abc import Awaitable, Callable
from typing import Any

from service.redis_client.client import RedisClient, Reply
from service.redis_client.scripts import Command
from service.sessions.scripts import SCRIPTS

Happening = Callable[[], Awaitable[Any]]


class Interrupted:
    """The calls of `lane`; around the first change whose commands have the given name, something else happens."""

    def __init__(
        self, redis_client: RedisClient, name: str, *, before: Happening | None = None, after: Happening | None = None
    ) -> None:
        self._redis_client = redis_client
        self._name = name
        self._before = before
        self._after = after
        self.read_hash, self.read_hashes, self.query = (
            redis_client.read_hash,
            redis_client.read_hashes,
            redis_client.query,
        )
        self.execute_ordered, self.broadcast, self.aclose = (
            redis_client.execute_ordered,
            redis_client.broadcast,
            redis_client.aclose,
        )

    @property
    def supports_multi_slot(self) -> bool:
        return self._redis_client.supports_multi_slot

    async def execute(self, *commands: Command) -> list[Reply]:
        if SCRIPTS.command_name(commands[0]) != self._name:
            return await self._redis_client.execute(*commands)
        before, self._before, after, self._after = self._before, None, self._after, None
        await _happen(before)
        replies = await self._redis_client.execute(*commands)
        await _happen(after)
        return replies


async def _happen(happening: Happening | None) -> None:
    if happening is not None:
        await happening()
