"""How many sessions there are: counted in the shards' indexes, judged by Redis's clock."""

from collections.abc import Iterator
from typing import NamedTuple

from service.indexes import BEGINNING, Stretch, entries_of
from service.instants import instant_of
from service.keys import SHARDS, Keys
from service.lane import Lane
from service.scripts import Command


class Tally(NamedTuple):
    """Sessions that live, and those that have ended and are not swept yet."""

    active: int
    ended: int

    @property
    def listed(self) -> int:
        return self.active + self.ended


class Counted(NamedTuple):
    """The tallies of all shards, in their order, at an instant of Redis's clock."""

    shards: list[Tally]
    at_ms: int

    @property
    def total(self) -> Tally:
        return Tally(*map(sum, zip(*self.shards, strict=True)))


class Census:
    """Counts over `lane`, which should not be the requests' own. What it costs does not grow with the sessions.

    It counts from the front of the indexes: in most shards little or nothing stands before now.
    """

    def __init__(self, lane: Lane, keys: Keys) -> None:
        self._lane = lane
        self._keys = keys

    async def take(self) -> Counted:
        (time,) = await self._lane.ask(("TIME",))
        now_ms = instant_of(time)
        numbers = iter(await self._lane.ask(*self._counts(now_ms)))
        return Counted([Tally(listed - ended, ended) for listed, ended in zip(numbers, numbers, strict=True)], now_ms)

    async def near_expiration(self, counted: Counted) -> int:
        """How many of the active are near their expiration."""
        begun = [("ZCOUNT", self._keys.warning(shard), "-inf", counted.at_ms) for shard in SHARDS]
        warned = await self._lane.ask(*begun)
        # a sweeper that came between takes from the warned what is still among the ended
        return sum(max(number - tally.ended, 0) for number, tally in zip(warned, counted.shards, strict=True))

    async def oldest_end_ms(self, counted: Counted) -> int | None:
        """When that session ended which has waited longest to be swept; None where none waits."""
        waiting = [shard for shard, tally in zip(SHARDS, counted.shards, strict=True) if tally.ended]
        fronts = await entries_of(self._lane, [Stretch(self._keys.expiry(shard), BEGINNING, 1) for shard in waiting])
        ends = [int(float(entry.score)) for front in fronts for entry in front]
        return min((end for end in ends if end <= counted.at_ms), default=None)

    def _counts(self, now_ms: int) -> Iterator[Command]:
        for shard in SHARDS:
            yield "ZCARD", self._keys.expiry(shard)
            yield "ZCOUNT", self._keys.expiry(shard), "-inf", now_ms
