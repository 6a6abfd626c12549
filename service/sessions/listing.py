"""List live sessions page by page, in the order of indexes that do not change while a session is live.

An entry of an index does not prove that a session is live, so each session is read before it is listed.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, cast

from service.redis_client.client import Fields, RedisClient, query_readable, readable_hashes
from service.sessions import scripts
from service.sessions.counts import CountsByShard, SessionCounts, ShardCount
from service.sessions.index_scan import BEGINNING, Entry, IndexRange, decode_id, read_ranges
from service.sessions.keys import SHARDS, Keys
from service.sessions.session import Session, readable_session_from

MAX_EXAMINED = 1000
"""The most index entries that a page examines. A page may be short although others follow."""

MAX_PAGE_BYTES = 256 * 1024
"""The most metadata in a page of several sessions. It bounds the memory that unread responses occupy."""

_READ_BATCH = 100
_COUNTED_FIELDS = tuple(field for field in scripts.FIELDS if field != b"metadata")
"""The last field, the metadata, may be large."""


class SessionFilter(NamedTuple):
    """The sessions to list. None matches any value."""

    agent_id: str | None = None
    user_id: str | None = None
    near_expiration: bool | None = None

    def matches(self, session: Session) -> bool:
        return (
            self.agent_id in (None, session.agent_id)
            and self.user_id in (None, session.user_id)
            and self.near_expiration in (None, session.is_near_expiration)
        )


class Position(NamedTuple):
    """A position in a scan: the number of the index, and the entry behind which it continues."""

    index_number: int
    score: str
    id: str

    @property
    def entry(self) -> Entry:
        return Entry(self.score, self.id)


START = Position(0, *BEGINNING)


class Page(NamedTuple):
    """Live sessions that match a filter. `total` is an upper bound over all pages, `next` the following position."""

    filter: SessionFilter
    sessions: list[Session]
    total: int
    stats: ShardCount
    next: Position | None


class IndexScan(NamedTuple):
    """The indexes of a scan, and their sizes when the page began. Empty indexes are skipped."""

    indexes: Sequence[str]
    sizes: Sequence[int]

    @property
    def owner_index(self) -> str | None:
        """The owner index that is scanned; None for a scan of all shards."""
        return self.indexes[0] if len(self.indexes) == 1 else None

    def plan(self, position: Position, number: int) -> tuple[list[int], Position | None]:
        """Choose indexes that likely hold `number` entries behind a position; also return where the others begin."""
        chosen, expected = list[int](), 0
        for index in range(position.index_number, len(self.indexes)):
            if expected >= number:
                return chosen, Position(index, *BEGINNING)
            if self.sizes[index]:
                chosen.append(index)
                is_started = index == position.index_number and self.sizes[index] <= number  # little of it may be left
                expected += 0 if is_started else self.sizes[index]
        return chosen, None


ReportStale = Callable[[str, Iterable[str]], None]
"""Receives an owner index, and ids in it whose sessions are not live."""


def ignore_stale(_: str, __: Iterable[str]) -> None:
    """Leave stale entries to the sweeper and the reconciler."""


def ignore_unreadable(_: str) -> None:
    """Report nothing."""


class SessionListing:
    """Lists sessions. Use a client other than for requests. Raises StoreUnavailable and ScriptError."""

    def __init__(
        self, client: RedisClient, keys: Keys, session_counts: SessionCounts, report_stale: ReportStale = ignore_stale
    ) -> None:
        self._client = client
        self._keys = keys
        self._session_counts = session_counts
        self._report_stale = report_stale
        self.on_unreadable: Callable[[str], None] = ignore_unreadable
        """Called with each id whose record or index entry is unreadable. They are not listed."""

    async def page(self, filter_: SessionFilter, limit: int, after: Position = START) -> Page:
        """List up to `limit` sessions behind a position."""
        counts, matching = await self._count(filter_)
        owner_indexes = self._keys.owner_indexes(filter_.agent_id, filter_.user_id)
        sizes: list[int] = (
            await self._client.query(*[("ZCARD", owner_index) for owner_index in owner_indexes])
            if owner_indexes
            else []
        )
        scan = IndexScan(owner_indexes[:1], sizes[:1]) if owner_indexes else self._scan_of_all_shards(counts)
        sessions, position = await self._sessions(scan, filter_, limit, after, counts)
        return Page(filter_, sessions, min([matching, *sizes]), counts.overall, position)

    async def page_for_user(self, user_id: str, filter_: SessionFilter, limit: int, after: Position = START) -> Page:
        """List like `page`, but count only sessions of this user, who must be the user of the filter."""
        page = await self.page(filter_, limit, after)
        total = await self._count_of_user(user_id, filter_)
        return page._replace(total=total, stats=ShardCount(active=total, expired=0))

    async def _count(self, filter_: SessionFilter) -> tuple[CountsByShard, int]:
        """Return the counts, and how many live sessions of all owners match `near_expiration`."""
        if filter_.near_expiration is None:
            counts = await self._session_counts.count()
            return counts, counts.overall.active
        counts, near = await self._session_counts.count_with_near_expiration()
        return counts, near if filter_.near_expiration else counts.overall.active - near

    async def _count_of_user(self, user_id: str, filter_: SessionFilter) -> int:
        """Count a user's live sessions that match. Entries behind the first MAX_EXAMINED are counted without a read."""
        owner_index = self._keys.user(user_id)
        size, ids = await self._client.query(("ZCARD", owner_index), ("ZRANGE", owner_index, 0, MAX_EXAMINED - 1))
        readable_ids = [entry.id for entry in (Entry("", decode_id(id_)) for id_ in ids) if entry.is_readable]
        sessions = await self._read_fields(readable_ids, _COUNTED_FIELDS, (b"{}",))
        matching = [session for session in sessions if session.time_remaining_ms > 0 and filter_.matches(session)]
        return len(matching) + max(cast(int, size) - len(ids), 0)  # entries behind may have ended or be unreadable

    def _scan_of_all_shards(self, counts: CountsByShard) -> IndexScan:
        sizes = [count.total for count in counts.shards.values()]
        return IndexScan([self._keys.created(shard) for shard in SHARDS], sizes)

    async def _sessions(
        self, scan: IndexScan, filter_: SessionFilter, limit: int, after: Position, counts: CountsByShard
    ) -> tuple[list[Session], Position | None]:
        found: list[Session] = []
        may_examine, position, free_bytes = MAX_EXAMINED, cast(Position | None, after), MAX_PAGE_BYTES
        while position is not None and may_examine > 0 and (room := min(limit - len(found), _READ_BATCH)):
            start = position
            examined, position = await self._entries(
                scan, start, may_examine if filter_.near_expiration else min(room, may_examine)
            )
            entries = self._readable(examined)
            if filter_.near_expiration:
                entries = await self._entries_near_expiration(entries, counts)
            if len(entries) > room:
                entries, position = entries[:room], entries[room - 1]
                examined = examined[: examined.index(position) + 1]
            may_examine -= len(examined)
            live = await self._live(entries)
            if scan.owner_index is not None:
                self._report_stale(scan.owner_index, {entry.id for entry in entries} - {session.id for session in live})
            for session in filter(filter_.matches, live):
                free_bytes -= len(session.metadata)
                if free_bytes < 0 and found:
                    return found, _position_before(session.id, entries, start)
                found.append(session)
        return found, position

    async def _entries(self, scan: IndexScan, after: Position, number: int) -> tuple[list[Position], Position | None]:
        """Read up to `number` entries, and return them with the position to continue from."""
        found: list[Position] = []
        position = cast(Position | None, after)
        while position is not None and (missing := number + 1 - len(found)) > 0:
            indexes, following = scan.plan(position, missing)
            starts = [position.entry if index == position.index_number else BEGINNING for index in indexes]
            ranges = [
                IndexRange(scan.indexes[index], start, missing) for index, start in zip(indexes, starts, strict=True)
            ]
            for index, entries in zip(indexes, await read_ranges(self._client, ranges), strict=True):
                found += [Position(index, *entry) for entry in entries]
            position = following
        return found[:number], found[number - 1] if len(found) > number else None

    async def _entries_near_expiration(self, entries: Sequence[Position], counts: CountsByShard) -> list[Position]:
        """Keep entries whose warning had started when their shard was counted."""
        ids_by_shard: dict[str, list[str]] = {}
        for entry in entries:
            ids_by_shard.setdefault(entry.id[:2], []).append(entry.id)
        commands = [("ZMSCORE", self._keys.warning(shard), *ids) for shard, ids in ids_by_shard.items()]
        replies = await query_readable(self._client, commands)
        warns_at = {
            id_: at_ms
            for ids, scores in zip(ids_by_shard.values(), replies, strict=True)
            for id_, at_ms in zip(ids, scores or [None] * len(ids), strict=True)
        }
        warned = {id_ for id_, at_ms in warns_at.items() if at_ms is not None and float(at_ms) <= counts.at_ms[id_[:2]]}
        return [entry for entry in entries if entry.id in warned]

    async def _live(self, entries: Sequence[Position]) -> list[Session]:
        """Read the live sessions. Reads expired ones twice, because they may have been renewed meanwhile."""
        sessions = []
        for start in range(0, len(entries), _READ_BATCH):
            sessions += await self._read([entry.id for entry in entries[start : start + _READ_BATCH]])
        expired = [session.id for session in sessions if session.time_remaining_ms <= 0]
        reread = {session.id: session for session in await self._read(expired)} if expired else {}
        latest = [reread.get(session.id, session) for session in sessions]
        return [session for session in latest if session.time_remaining_ms > 0]

    async def _read(self, session_ids: Sequence[str]) -> list[Session]:
        return await self._read_fields(session_ids, scripts.FIELDS)

    async def _read_fields(
        self, session_ids: Sequence[str], fields: Fields, other_values: Sequence[bytes] = ()
    ) -> list[Session]:
        """Read the readable sessions. `other_values` replace the fields that are not read."""
        keys = [self._keys.session(session_id) for session_id in session_ids]
        sessions = []
        for session_id, read in zip(session_ids, await readable_hashes(self._client, keys, fields), strict=True):
            values, now_ms = read or ((b"",), 0)
            session = readable_session_from(session_id, (*values, *other_values), now_ms) if read else None
            if session is not None:
                sessions.append(session)
            elif any(value is not None for value in values):
                self.on_unreadable(session_id)
        return sessions

    def _readable(self, entries: Sequence[Position]) -> Sequence[Position]:
        unreadable = [position.id for position in entries if not position.entry.is_readable]
        for session_id in unreadable:
            self.on_unreadable(session_id)
        return [position for position in entries if position.entry.is_readable] if unreadable else entries


def _position_before(session_id: str, entries: Sequence[Position], start: Position) -> Position:
    number = [entry.id for entry in entries].index(session_id)
    return entries[number - 1] if number else start
