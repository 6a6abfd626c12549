"""How many sessions there are: counted shard by shard, each in one moment and by the clock of its own server."""

from collections.abc import Mapping
from typing import NamedTuple

from service.lanes.lane import Lane, UnknownAnswer
from service.life import scripts
from service.life.keys import SHARDS, Keys
from service.listing.indexes import BEGINNING, Stretch, entries_of


class Tally(NamedTuple):
    """Sessions that live, those that have ended and are not swept yet, and how many that live are near their end."""

    active: int
    ended: int
    near: int

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
    """Counts over `lane`, which should not be the requests' own. What it costs does not grow with the sessions."""

    def __init__(self, lane: Lane, keys: Keys) -> None:
        self._lane = lane
        self._keys = keys
        shards = [_Shard(keys.expiry(shard), keys.warning(shard)) for shard in SHARDS]
        self._counts = [scripts.COUNT.command(shard) for shard in shards]

    async def take(self) -> Counted:
        words, instants, listed, ended, near = zip(*await self._lane.ask(*self._counts), strict=True)
        if set(words) != {b"tally"}:
            raise UnknownAnswer(repr(words))
        active = map(int.__sub__, listed, ended)
        shards = map(Tally, active, ended, near)
        return Counted(dict(zip(SHARDS, shards, strict=True)), dict(zip(SHARDS, instants, strict=True)))

    async def oldest_end_ms(self, counted: Counted) -> int | None:
        """When that session ended which has waited longest to be swept; None where none waits."""
        waiting = [shard for shard, tally in counted.shards.items() if tally.ended]
        fronts = await entries_of(self._lane, [Stretch(self._keys.expiry(shard), BEGINNING, 1) for shard in waiting])
        ends = [
            (int(float(entry.score)), shard) for shard, front in zip(waiting, fronts, strict=True) for entry in front
        ]
        return min((end_ms for end_ms, shard in ends if end_ms <= counted.at_ms[shard]), default=None)


class _Shard(NamedTuple):
    """The keys of a shard's indexes that are counted."""

    expiry: str
    warning: str
