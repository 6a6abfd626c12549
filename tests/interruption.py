"""A Redis client that runs other code before or after a certain call, to reproduce race conditions."""

from collections.abc import Awaitable, Callable
from typing import Any

from service.redis_client.client import RedisClient, Reply
from service.redis_client.scripts import Command
from service.sessions.scripts import SCRIPTS

Action = Callable[[], Awaitable[Any]]


class Interrupted:
    """Wraps a client. Runs `before` and `after` around the first `execute` whose first command has this name."""

    def __init__(
        self, redis_client: RedisClient, name: str, *, before: Action | None = None, after: Action | None = None
    ) -> None:
        self._redis_client = redis_client
        self._name = name
        self._before = before
        self._after = after
        self.read_hash = redis_client.read_hash
        self.read_hashes = redis_client.read_hashes
        self.query = redis_client.query
        self.execute_ordered = redis_client.execute_ordered
        self.broadcast = redis_client.broadcast
        self.aclose = redis_client.aclose

    @property
    def supports_multi_slot(self) -> bool:
        return self._redis_client.supports_multi_slot

    async def execute(self, *commands: Command) -> list[Reply]:
        if SCRIPTS.command_name(commands[0]) != self._name:
            return await self._redis_client.execute(*commands)
        before, self._before, after, self._after = self._before, None, self._after, None
        await _run(before)
        replies = await self._redis_client.execute(*commands)
        await _run(after)
        return replies


async def _run(action: Action | None) -> None:
    if action is not None:
        await action()
