"""A lane on which something happens between two calls: races without a race."""

from collections.abc import Awaitable, Callable
from typing import Any

from service.lanes.lane import Lane, Reply
from service.life.scripts import Command, name_of

Happening = Callable[[], Awaitable[Any]]


class Interrupted:
    """The calls of `lane`; around the first change whose commands have the given name, something else happens."""

    def __init__(
        self, lane: Lane, name: str, *, before: Happening | None = None, after: Happening | None = None
    ) -> None:
        self._lane = lane
        self._name = name
        self._before = before
        self._after = after
        self.read, self.reads, self.ask = lane.read, lane.reads, lane.ask
        self.in_order, self.everywhere, self.aclose = lane.in_order, lane.everywhere, lane.aclose

    @property
    def spans_slots(self) -> bool:
        return self._lane.spans_slots

    async def change(self, *commands: Command) -> list[Reply]:
        if name_of(commands[0]) != self._name:
            return await self._lane.change(*commands)
        before, self._before, after, self._after = self._before, None, self._after, None
        await _happen(before)
        replies = await self._lane.change(*commands)
        await _happen(after)
        return replies


async def _happen(happening: Happening | None) -> None:
    if happening is not None:
        await happening()
