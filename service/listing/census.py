"""How many sessions there are: counted shard by shard, each in one moment and by the clock of its own server."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from service.lanes.lane import Lane, UnknownAnswer
from service.life import scripts
from service.life.keys import SHARDS, Keys
from service.listing.indexes import BEGINNING, Stretch, entries_of

_SHARDS_AT_ONCE = 32
"""As many as one script counts where they lie together: Redis does nothing else meanwhile."""


class Tally(NamedTuple):
    """Sessions that live, and those that have ended and are not swept yet."""

    active: int
    ended: int

    @property
    def listed(self) -> int:
        return self.active + self.ended


class Counted(NamedTuple):
    """The tallies of all shards, in their order, and by shard the instant, in milliseconds, at which each was taken."""

    shards: Mapping[str, Tally]
    at_ms: Mapping[str, int]

    @property
    def total(self) -> Tally:
        return Tally(*map(sum, zip(*self.shards.values(), strict=True)))


class Census:
    """Counts over `lane`, which should not be the requests' own. The commands that it takes do not grow in number."""

    def __init__(self, lane: Lane, keys: Keys) -> None:
        self._lane = lane
        self._keys = keys
        together = _SHARDS_AT_ONCE if lane.spans_slots else 1
        self._groups = [SHARDS[start : start + together] for start in range(0, len(SHARDS), together)]

    async def take(self) -> Counted:
        counted, _ = await self._take(near="false")
        return counted

    async def take_with_near(self) -> tuple[Counted, int]:
        """The same, and how many of those that live are near their end: it costs twice as much."""
        return await self._take(near="true")

    async def _take(self, near: str) -> tuple[Counted, int]:
        commands = [scripts.COUNT.command_over(self._indexes(group), near=near) for group in self._groups]
        tallies, instants, all_near = dict[str, Tally](), dict[str, int](), 0
        for group, answer in zip(self._groups, await self._lane.ask(*commands), strict=True):
            match answer:
                case [b"tally", now_ms, number_near, counts]:
                    listed, ended = counts[::2], counts[1::2]
                    tallies |= zip(group, map(Tally, map(int.__sub__, listed, ended), ended), strict=True)
                    instants |= dict.fromkeys(group, now_ms)
                    all_near += number_near
                case _:
                    raise UnknownAnswer(repr(answer))
        return Counted(tallies, instants), all_near

    def _indexes(self, group: Sequence[str]) -> list[str]:
        return [key for shard in group for key in (self._keys.expiry(shard), self._keys.warning(shard))]

    async def oldest_end_ms(self, counted: Counted) -> int | None:
        """When that session ended which has waited longest to be swept; None where none waits."""
        waiting = [shard for shard, tally in counted.shards.items() if tally.ended]
        fronts = await entries_of(self._lane, [Stretch(self._keys.expiry(shard), BEGINNING, 1) for shard in waiting])
        ends = [
            (int(float(entry.score)), shard) for shard, front in zip(waiting, fronts, strict=True) for entry in front
        ]
        return min((end_ms for end_ms, shard in ends if end_ms <= counted.at_ms[shard]), default=None)
