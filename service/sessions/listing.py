"""Which sessions there are: listed page by page in the order of indexes that never change while a session lives.

What an index lists is no proof: each session is read, and judged by Redis's clock, before it is shown.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import NamedTuple, cast

from service.redis_client.client import RedisClient
from service.sessions import scripts
from service.sessions.counts import CountsByShard, SessionCounts, ShardCount
from service.sessions.index_scan import BEGINNING, Entry, Stretch, entries_of
from service.sessions.keys import SHARDS, Keys
from service.sessions.session import Session, session_from

MAX_EXAMINED = 1000
"""How many entries of indexes a page looks at; it may be short of sessions and yet not be the last."""

_READ_AT_ONCE = 100


class SessionFilter(NamedTuple):
    """Whose sessions are listed; None is any. `near_expiration` False lists those that are not."""

    agent_id: str | None = None
    user_id: str | None = None
    near_expiration: bool | None = None

    @property
    def indexes(self) -> int:
        """How many indexes it is a walk through: a lookup, or the shards' indexes of creation."""
        return len(SHARDS) if self.agent_id is None and self.user_id is None else 1

    def holds(self, session: Session) -> bool:
        return (
            self.agent_id in (None, session.agent_id)
            and self.user_id in (None, session.user_id)
            and self.near_expiration in (None, session.is_near_expiration)
        )


class Position(NamedTuple):
    """A place in a walk: behind this entry of that one among its indexes. The entry may have left it."""

    part: int
    score: str
    id: str

    @property
    def entry(self) -> Entry:
        return Entry(self.score, self.id)


START = Position(0, *BEGINNING)


class Page(NamedTuple):
    """Sessions that live and are wanted; `total` is how many there are on all pages, at most, `next` where to go on."""

    wanted: SessionFilter
    sessions: list[Session]
    total: int
    stats: ShardCount
    next: Position | None

    def alone(self) -> "Page":
        """The same, for a reader who is to learn nothing of others: its stats tell of what `total` counts."""
        return self._replace(stats=ShardCount(active=self.total, ended=0))


class IndexScan(NamedTuple):
    """The indexes of a walk, and how many entries each held when the page began; those of size 0 are passed over."""

    indexes: Sequence[str]
    sizes: Sequence[int]

    @property
    def owner_index(self) -> str | None:
        """The lookup that it is a walk through; None where it is one through the shards."""
        return self.indexes[0] if len(self.indexes) == 1 else None

    def ahead(self, position: Position, number: int) -> tuple[list[int], Position | None]:
        """The indexes that likely hold so many entries after a place, and where those behind them begin."""
        chosen, expected = list[int](), 0
        for part in range(position.part, len(self.indexes)):
            if expected >= number:
                return chosen, Position(part, *BEGINNING)
            if self.sizes[part]:
                chosen.append(part)
                is_begun = part == position.part and self.sizes[part] <= number  # then what is left of it may be little
                expected += 0 if is_begun else self.sizes[part]
        return chosen, None


Absent = Callable[[str, Iterable[str]], None]


def unheeded(_: str, __: Iterable[str]) -> None:
    """Nobody is there to take absent ids out of their lookup."""


class SessionListing:
    """Lists sessions over `lane`, which should not be the requests' own. Raises StoreUnavailable and ScriptFault.

    `absent` is told of ids in a lookup whose sessions were not found to live.
    """

    def __init__(
        self, redis: RedisClient, keys: Keys, session_counts: SessionCounts, absent: Absent = unheeded
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._session_counts = session_counts
        self._absent = absent

    async def page(self, wanted: SessionFilter, limit: int, after: Position = START) -> Page:
        """Up to `limit` sessions behind a place in the walk, in the walk's order."""
        counted, of_all = await self._count(wanted)
        owner_indexes = self._keys.owner_indexes(wanted.agent_id, wanted.user_id)
        sizes: list[int] = (
            await self._redis.query(*[("ZCARD", owner_index) for owner_index in owner_indexes]) if owner_indexes else []
        )
        walk = IndexScan(owner_indexes[:1], sizes[:1]) if owner_indexes else self._all_shards(counted)
        sessions, position = await self._sessions(walk, wanted, limit, after, counted)
        total = min([of_all, *sizes])
        return Page(wanted, sessions, total, counted.total, position)

    async def _count(self, wanted: SessionFilter) -> tuple[CountsByShard, int]:
        """The tallies, and how many sessions of whomever are as near to their end as is wanted."""
        if wanted.near_expiration is None:
            counted = await self._session_counts.take()
            return counted, counted.total.active
        counted, near = await self._session_counts.take_with_near()
        return counted, near if wanted.near_expiration else counted.total.active - near

    def _all_shards(self, counted: CountsByShard) -> IndexScan:
        sizes = [tally.listed for tally in counted.shards.values()]
        return IndexScan([self._keys.created(shard) for shard in SHARDS], sizes)

    async def _sessions(
        self, walk: IndexScan, wanted: SessionFilter, limit: int, after: Position, counted: CountsByShard
    ) -> tuple[list[Session], Position | None]:
        found: list[Session] = []
        may_examine, position = MAX_EXAMINED, cast(Position | None, after)
        while position is not None and may_examine and (room := limit - len(found)):
            number = may_examine if wanted.near_expiration else min(room, may_examine)
            entries, position = await self._entries(walk, position, number)
            may_examine -= len(entries)
            if wanted.near_expiration:
                entries = await self._near_expiration(entries, counted)
            if len(entries) > room:
                entries, position = entries[:room], entries[room - 1]
            living = await self._living(entries)
            if walk.owner_index is not None:
                self._absent(walk.owner_index, {entry.id for entry in entries} - {session.id for session in living})
            found += [session for session in living if wanted.holds(session)]
        return found, position

    async def _entries(self, walk: IndexScan, after: Position, number: int) -> tuple[list[Position], Position | None]:
        """Up to `number` entries behind a place, and the place to go on from; None at the end of the walk."""
        found: list[Position] = []
        position = cast(Position | None, after)
        while position is not None and (missing := number + 1 - len(found)) > 0:
            parts, behind = walk.ahead(position, missing)
            places = [position.entry if part == position.part else BEGINNING for part in parts]
            stretches = [Stretch(walk.indexes[part], place, missing) for part, place in zip(parts, places, strict=True)]
            for part, entries in zip(parts, await entries_of(self._redis, stretches), strict=True):
                found += [Position(part, *entry) for entry in entries]
            position = behind
        return found[:number], found[number - 1] if len(found) > number else None

    async def _near_expiration(self, entries: Sequence[Position], counted: CountsByShard) -> list[Position]:
        """Those whose shard's index says that their warning had begun when they were counted."""
        of_shards: dict[str, list[str]] = {}
        for entry in entries:
            of_shards.setdefault(entry.id[:2], []).append(entry.id)
        commands = [("ZMSCORE", self._keys.warning(shard), *ids) for shard, ids in of_shards.items()]
        replies = await self._redis.query(*commands) if commands else []
        warned_at = dict(zip(chain(*of_shards.values()), chain(*replies), strict=True))
        begun = {id_ for id_, at in warned_at.items() if at is not None and float(at) <= counted.at_ms[id_[:2]]}
        return [entry for entry in entries if entry.id in begun]

    async def _living(self, entries: Sequence[Position]) -> list[Session]:
        """Those that live. What seems to have ended may have been renewed since it was read: it is read again."""
        sessions = []
        for start in range(0, len(entries), _READ_AT_ONCE):
            sessions += await self._read([entry.id for entry in entries[start : start + _READ_AT_ONCE]])
        late = [session.id for session in sessions if session.time_remaining_ms <= 0]
        again = {session.id: session for session in await self._read(late)} if late else {}
        latest = [again.get(session.id, session) for session in sessions]
        return [session for session in latest if session.time_remaining_ms > 0]

    async def _read(self, session_ids: Sequence[str]) -> list[Session]:
        """What there is of these sessions, in their order."""
        found = await self._redis.read_hashes(
            [self._keys.session(session_id) for session_id in session_ids], scripts.FIELDS
        )
        return [
            session_from(session_id, cast(Sequence[bytes], values), now_ms)
            for session_id, (values, now_ms) in zip(session_ids, found, strict=True)
            if None not in values
        ]
