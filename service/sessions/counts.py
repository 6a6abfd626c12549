"""How many sessions there are: counted shard by shard, each in one moment and by the clock of its own server."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from service.redis_client.client import RedisClient
from service.redis_client.errors import UnexpectedReply
from service.sessions import scripts
from service.sessions.index_scan import BEGINNING, Stretch, entries_of
from service.sessions.keys import SHARDS, Keys

_SHARDS_AT_ONCE = 32
"""As many as one script counts where they lie together: Redis does nothing else meanwhile."""


class ShardCount(NamedTuple):
    """Sessions that live, and those that have ended and are not swept yet."""

    active: int
    ended: int

    @property
    def listed(self) -> int:
        return self.active + self.ended


class CountsByShard(NamedTuple):
    """The tallies of all shards, in their order, and by shard the instant, in milliseconds, at which each was taken."""

    shards: Mapping[str, ShardCount]
    at_ms: Mapping[str, int]

    @property
    def total(self) -> ShardCount:
        return ShardCount(*map(sum, zip(*self.shards.values(), strict=True)))


class SessionCounts:
    """Counts over `lane`, which should not be the requests' own. The commands that it takes do not grow in number."""

    def __init__(self, redis: RedisClient, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        together = _SHARDS_AT_ONCE if redis.supports_multi_slot else 1
        self._groups = [SHARDS[start : start + together] for start in range(0, len(SHARDS), together)]

    async def take(self) -> CountsByShard:
        counted, _ = await self._take(near="false")
        return counted

    async def take_with_near(self) -> tuple[CountsByShard, int]:
        """The same, and how many of those that live are near their end: it costs twice as much."""
        return await self._take(near="true")

    async def _take(self, near: str) -> tuple[CountsByShard, int]:
        commands = [scripts.COUNT.command_with_keys(self._indexes(group), counts_near=near) for group in self._groups]
        tallies, instants, all_near = dict[str, ShardCount](), dict[str, int](), 0
        for group, answer in zip(self._groups, await self._redis.query(*commands), strict=True):
            match answer:
                case [b"counts", now_ms, number_near, counts]:
                    listed, ended = counts[::2], counts[1::2]
                    tallies |= zip(group, map(ShardCount, map(int.__sub__, listed, ended), ended), strict=True)
                    instants |= dict.fromkeys(group, now_ms)
                    all_near += number_near
                case _:
                    raise UnexpectedReply(repr(answer))
        return CountsByShard(tallies, instants), all_near

    def _indexes(self, group: Sequence[str]) -> list[str]:
        return [key for shard in group for key in (self._keys.expiry(shard), self._keys.warning(shard))]

    async def oldest_end_ms(self, counted: CountsByShard) -> int | None:
        """When that session ended which has waited longest to be swept; None where none waits."""
        waiting = [shard for shard, tally in counted.shards.items() if tally.ended]
        fronts = await entries_of(self._redis, [Stretch(self._keys.expiry(shard), BEGINNING, 1) for shard in waiting])
        ends = [
            (int(float(entry.score)), shard) for shard, front in zip(waiting, fronts, strict=True) for entry in front
        ]
        return min((end_ms for end_ms, shard in ends if end_ms <= counted.at_ms[shard]), default=None)
