"""A lane whose changes wait for replicas: they have connections of their own, so that no read waits behind them."""

from collections.abc import Sequence

from service.lanes.lane import Fields, Lane, Read, Reply
from service.life.scripts import Command


class ReplicatedLane:
    """Reads through one lane and changes through another, which is the one that waits (see batch.Replication)."""

    def __init__(self, reading: Lane, changing: Lane) -> None:
        self._reading = reading
        self._changing = changing

    @property
    def spans_slots(self) -> bool:
        return self._reading.spans_slots

    async def read(self, key: str, fields: Fields) -> Read:
        return await self._reading.read(key, fields)

    async def reads(self, keys: Sequence[str], fields: Fields) -> list[Read]:
        return await self._reading.reads(keys, fields)

    async def ask(self, *commands: Command) -> list[Reply]:
        return await self._reading.ask(*commands)

    async def change(self, *commands: Command) -> list[Reply]:
        return await self._changing.change(*commands)

    async def in_order(self, *commands: Command) -> list[Reply]:
        return await self._changing.in_order(*commands)

    async def everywhere(self, *commands: Command) -> dict[str, list[Reply]]:
        return await self._reading.everywhere(*commands)

    async def aclose(self) -> None:
        await self._reading.aclose()
        await self._changing.aclose()
