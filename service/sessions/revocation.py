"""End all sessions of a user, of an agent, or of a user with an agent, including sessions under creation.

A creation adds its id to the owner indexes before it creates the session. So an id without a session belongs to an
ended session or to one under creation. A marker in place of its tombstone makes create.lua refuse the creation.

With a user and an agent, the call scans one index and skips ids that the other one lacks. For a user's token it scans
the user's index, so that cursors contain no ids of other users; otherwise it scans the shorter one. An id under
creation that is in one index only is added to the other after the call began, and such sessions may survive.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from service.redis_client.client import PartialFailure, RedisClient, Reply, run_all
from service.redis_client.errors import UnexpectedReply
from service.redis_client.scripts import Command
from service.sessions import scripts
from service.sessions.events import SessionEvents
from service.sessions.index_scan import BEGINNING, Entry, IndexRange, read_last, read_ranges
from service.sessions.keys import REVOCATION_MARKER_MS, Keys, group_by_shard
from service.sessions.owner_index import remove_from_owner_indexes
from service.sessions.session import decode_owner

MAX_REVOKED = 1000
"""The most sessions that one call ends."""

MAX_EXAMINED = 50_000
"""The most index entries that one call examines."""

_USER_INDEX = 0
"""The number of the user's index, if the filter has a user."""

_NO_MARKER = 0
_PAGE = 1000
_BATCH = 100


class OwnerFilter(NamedTuple):
    """The owners whose sessions to end: a user, an agent or both. None matches any."""

    agent_id: str | None
    user_id: str | None


class Remainder(NamedTuple):
    """What a revocation has yet to examine: an index, identified by its number, behind a position up to an entry."""

    index_number: int
    after: Entry
    last: Entry

    def behind(self, position: Entry) -> "Remainder | None":
        return self._replace(after=position) if position.order < self.last.order else None


class Revoked(NamedTuple):
    """How many sessions ended, and what the next call has to examine; None if nothing is left."""

    number: int
    remainder: Remainder | None


class BulkRevocation:
    """Ends sessions. Use a client other than for requests. Sessions that ended stay ended if a method raises."""

    def __init__(self, client: RedisClient, keys: Keys, events: SessionEvents) -> None:
        self._client = client
        self._keys = keys
        self._events = events

    async def revoke(self, filter_: OwnerFilter, remainder: Remainder | None = None) -> Revoked:
        """End sessions that are indexed now, or what a call left. Sessions that are added later are not affected."""
        return await self._revoke_and_report(filter_, remainder or await self._shorter_index(filter_))

    async def revoke_for_user(self, filter_: OwnerFilter, remainder: Remainder | None = None) -> Revoked:
        """End sessions like `revoke`, but scan only the index of the filter's user."""
        return await self._revoke_and_report(filter_, remainder or await self._everything(filter_, _USER_INDEX))

    async def _revoke_and_report(self, filter_: OwnerFilter, remainder: Remainder | None) -> Revoked:
        revoked = await self._revoke(filter_, remainder)
        self._events.revoked(*filter_, revoked.number, more=revoked.remainder is not None)
        return revoked

    async def _shorter_index(self, filter_: OwnerFilter) -> Remainder | None:
        owner_indexes = self._keys.owner_indexes(*filter_)
        sizes: list[int] = await self._client.query(*[("ZCARD", owner_index) for owner_index in owner_indexes])
        return await self._everything(filter_, sizes.index(min(sizes)))

    async def _everything(self, filter_: OwnerFilter, index_number: int) -> Remainder | None:
        """An index, up to its present last entry."""
        last = await read_last(self._client, self._keys.owner_indexes(*filter_)[index_number])
        return None if last is None else Remainder(index_number, BEGINNING, last)

    async def _revoke(self, filter_: OwnerFilter, remainder: Remainder | None) -> Revoked:
        number, may_examine = 0, MAX_EXAMINED
        while remainder is not None and may_examine and number < MAX_REVOKED:
            entries = await self._entries(filter_, remainder, min(_PAGE, may_examine))
            ended, position = await self._end_entries(filter_, remainder, entries, MAX_REVOKED - number)
            number, may_examine = number + ended, may_examine - len(entries)
            remainder = remainder.behind(position)
        return Revoked(number, remainder)

    async def _entries(self, filter_: OwnerFilter, remainder: Remainder, limit: int) -> list[Entry]:
        owner_index = self._keys.owner_indexes(*filter_)[remainder.index_number]
        (entries,) = await read_ranges(self._client, [IndexRange(owner_index, remainder.after, limit)])
        return [entry for entry in entries if entry.order <= remainder.last.order]

    async def _end_entries(
        self, filter_: OwnerFilter, remainder: Remainder, entries: Sequence[Entry], limit: int
    ) -> tuple[int, Entry]:
        """End up to `limit` sessions. Return how many ended, and the position up to which entries were examined."""
        matching = await self._in_all_indexes(filter_, remainder, entries)
        number, done = 0, 0
        while done < len(matching) and number < limit:
            batch = matching[done : done + min(_BATCH, limit - number)]
            await self._remove_unreadable(filter_, [entry for entry in batch if not entry.is_readable])
            number += await self._end(filter_, [entry.id for entry in batch if entry.is_readable])
            done += len(batch)
        if done < len(matching):
            return number, matching[done - 1]
        return number, entries[-1] if entries else remainder.last

    async def _in_all_indexes(
        self, filter_: OwnerFilter, remainder: Remainder, entries: Sequence[Entry]
    ) -> Sequence[Entry]:
        owner_indexes = self._keys.owner_indexes(*filter_)
        others = [key for number, key in enumerate(owner_indexes) if number != remainder.index_number]
        if not others or not entries:
            return entries
        ids = [entry.member for entry in entries]
        commands: list[Command] = [("ZMSCORE", owner_index, *ids) for owner_index in others]
        (scores,) = await self._client.query(*commands)
        return [entry for entry, score in zip(entries, scores, strict=True) if score is not None]

    async def _remove_unreadable(self, filter_: OwnerFilter, entries: Sequence[Entry]) -> None:
        """Remove entries that are not text. No session has such an id."""
        members = [entry.member for entry in entries]
        keys = [key for index in self._keys.owner_indexes(*filter_) for key in self._keys.keys_with_ids(index)]
        if members:
            commands: list[Command] = [("ZREM", key, *members) for key in keys]
            await self._client.execute(*commands)

    async def _end(self, filter_: OwnerFilter, session_ids: Sequence[str]) -> int:
        """End sessions, then leave markers for missing ones: markers take memory, which may be short.

        If a node is unavailable, sessions on the other nodes end before this raises StoreUnavailable.
        """
        failures = PartialFailure()
        replies: dict[str, Reply] = {}
        number = await self._end_or_mark(filter_, session_ids, _NO_MARKER, replies, failures)
        missing = [session_id for session_id, reply in replies.items() if reply == [b"missing"]]
        number += await self._end_or_mark(filter_, missing, REVOCATION_MARKER_MS, {}, failures)
        failures.raise_if_any()
        return number

    async def _end_or_mark(
        self,
        filter_: OwnerFilter,
        session_ids: Sequence[str],
        marker_lifetime_ms: int,
        replies: dict[str, Reply],
        failures: PartialFailure,
    ) -> int:
        """Run revoke.lua and add its known replies to `replies`, by id. Return how many sessions ended."""
        try:
            await run_all(
                self._run(filter_, shard, marker_lifetime_ms, replies, failures)
                for shard in group_by_shard(session_ids)
            )
        finally:  # also after a ScriptError in one of the shards
            number = await self._process(filter_, replies)
        return number

    async def _run(
        self,
        filter_: OwnerFilter,
        session_ids: Sequence[str],
        marker_lifetime_ms: int,
        replies: dict[str, Reply],
        failures: PartialFailure,
    ) -> None:
        """Run revoke.lua once for ids of one shard: a second run would report an ended session as missing."""
        commands = [
            scripts.REVOKE.command(
                self._keys.of(session_id),
                id=session_id,
                agent_id=filter_.agent_id or "",
                user_id=filter_.user_id or "",
                marker_lifetime_ms=marker_lifetime_ms,
            )
            for session_id in session_ids
        ]
        with failures:
            replies.update(zip(session_ids, await self._client.execute(*commands), strict=True))

    async def _process(self, filter_: OwnerFilter, replies: Mapping[str, Reply]) -> int:
        """Report ended sessions, and remove ended and marked ids from their indexes. Return how many ended."""
        revoked = {session_id: reply[1:] for session_id, reply in replies.items() if reply[0] == b"revoked"}
        for session_id, (agent_id, user_id) in revoked.items():
            self._events.ended(session_id, "revoked", decode_owner(agent_id), decode_owner(user_id))
        ids_by_index = defaultdict[str, list[str]](list)
        for session_id, reply in replies.items():
            for owner_index in self._indexes_to_leave(filter_, reply):
                ids_by_index[owner_index].append(session_id)
        left = await remove_from_owner_indexes(self._client, self._keys, ids_by_index, PartialFailure())
        for session_id in left & revoked.keys():
            agent_id, user_id = revoked[session_id]
            cause = "the node of an owner index is unavailable"
            self._events.index_entry_left(session_id, decode_owner(agent_id), decode_owner(user_id), cause)
        return len(revoked)

    def _indexes_to_leave(self, filter_: OwnerFilter, reply: Reply) -> list[str]:
        match reply:
            case [b"revoked", agent_id, user_id]:
                owners = {*self._keys.owner_indexes(*map(_owner, (agent_id, user_id)))}
                return [*owners.union(self._keys.owner_indexes(*filter_))]
            case [b"marked"] | [b"expired", _, _]:
                return self._keys.owner_indexes(*filter_)
            case [b"other_owner"] | [b"lost"] | [b"missing"]:
                return []
            case _:
                raise UnexpectedReply(repr(reply))


def _owner(stored: bytes) -> str | None:
    """Decode the owner of a session. An unreadable session may have none."""
    return decode_owner(stored) or None
