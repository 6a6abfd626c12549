"""A lane whose changes wait for replicas: they have connections of their own, so that no read waits behind them."""

from collections.abc import Sequence

from service.redis_client.client import Fields, Read, RedisClient, Reply
from service.redis_client.scripts import Command


class ReplicatedClient:
    """Reads through one lane and changes through another, which is the one that waits (see batch.Replication)."""

    def __init__(self, reading: RedisClient, changing: RedisClient) -> None:
        self._reading = reading
        self._changing = changing

    @property
    def supports_multi_slot(self) -> bool:
        return self._reading.supports_multi_slot

    async def read_hash(self, key: str, fields: Fields) -> Read:
        return await self._reading.read_hash(key, fields)

    async def read_hashes(self, keys: Sequence[str], fields: Fields) -> list[Read]:
        return await self._reading.read_hashes(keys, fields)

    async def query(self, *commands: Command) -> list[Reply]:
        return await self._reading.query(*commands)

    async def execute(self, *commands: Command) -> list[Reply]:
        return await self._changing.execute(*commands)

    async def execute_ordered(self, *commands: Command) -> list[Reply]:
        return await self._changing.execute_ordered(*commands)

    async def broadcast(self, *commands: Command) -> dict[str, list[Reply]]:
        return await self._reading.broadcast(*commands)

    async def aclose(self) -> None:
        await self._reading.aclose()
        await self._changing.aclose()
