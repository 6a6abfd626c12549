"""Count sessions, shard by shard."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from service.redis_client.client import RedisClient
from service.redis_client.errors import UnexpectedReply
from service.sessions import scripts
from service.sessions.index_scan import BEGINNING, IndexRange, read_ranges
from service.sessions.keys import SHARDS, Keys

_SHARDS_PER_SCRIPT = 32
"""Redis does nothing else while a script counts."""


class ShardCount(NamedTuple):
    """The number of live sessions, and of expired sessions that are not swept yet."""

    active: int
    expired: int

    @property
    def total(self) -> int:
        return self.active + self.expired


class CountsByShard(NamedTuple):
    """The count of each shard, and the time of its server at which it was taken."""

    shards: Mapping[str, ShardCount]
    at_ms: Mapping[str, int]

    @property
    def overall(self) -> ShardCount:
        return ShardCount(*map(sum, zip(*self.shards.values(), strict=True)))


class SessionCounts:
    """Counts sessions, in a number of commands that does not grow with them. Use a client other than for requests."""

    def __init__(self, client: RedisClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        group_size = _SHARDS_PER_SCRIPT if client.supports_multi_slot else 1
        self._groups = [SHARDS[start : start + group_size] for start in range(0, len(SHARDS), group_size)]

    async def count(self) -> CountsByShard:
        counts, _ = await self._count(counts_near="false")
        return counts

    async def count_with_near_expiration(self) -> tuple[CountsByShard, int]:
        """Count, and also return how many live sessions are near their expiration. This doubles the cost."""
        return await self._count(counts_near="true")

    async def oldest_expiry_ms(self, counts: CountsByShard) -> int | None:
        """Return when the longest expired session that is not swept yet expired."""
        unswept = [shard for shard, count in counts.shards.items() if count.expired]
        ranges = [IndexRange(self._keys.expiry(shard), BEGINNING, 1) for shard in unswept]
        heads = await read_ranges(self._client, ranges)
        expiries = [
            (int(float(entry.score)), shard) for shard, head in zip(unswept, heads, strict=True) for entry in head
        ]
        return min((expiry_ms for expiry_ms, shard in expiries if expiry_ms <= counts.at_ms[shard]), default=None)

    async def _count(self, counts_near: str) -> tuple[CountsByShard, int]:
        commands = [
            scripts.COUNT.command_with_keys(self._indexes(group), counts_near=counts_near) for group in self._groups
        ]
        shards, at_ms, near_expiration = dict[str, ShardCount](), dict[str, int](), 0
        for group, reply in zip(self._groups, await self._client.query(*commands), strict=True):
            match reply:
                case [b"counts", now_ms, near, numbers]:
                    totals, expired = numbers[::2], numbers[1::2]
                    shards |= zip(group, map(ShardCount, map(int.__sub__, totals, expired), expired), strict=True)
                    at_ms |= dict.fromkeys(group, now_ms)
                    near_expiration += near
                case _:
                    raise UnexpectedReply(repr(reply))
        return CountsByShard(shards, at_ms), near_expiration

    def _indexes(self, group: Sequence[str]) -> list[str]:
        return [key for shard in group for key in (self._keys.expiry(shard), self._keys.warning(shard))]
