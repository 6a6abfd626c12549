"""Repair owner indexes: restore missing entries of live sessions, and remove entries of sessions that are gone."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import NamedTuple

from service.errors import StoreUnavailable
from service.redis_client.client import PartialFailure, RedisClient, Reply, query_readable, replies_or_none
from service.redis_client.errors import ScriptError, UnexpectedReply
from service.redis_client.scripts import Command
from service.sessions import scripts
from service.sessions.keys import REVOCATION_MARKER_MS, Keys, OwnerIndexKeys

REMOVAL_INTERVAL_SECONDS = 5

MAX_QUEUED = 10_000
"""How many entries one replica queues. Readers that find the others queue them again."""

MAX_QUEUED_BY_READERS = 1000
"""The queue length from which entries that readers found are not queued any more."""

_BATCH = 100
_NO_TTL = -1

_log = logging.getLogger(__name__)


class StaleEntry(NamedTuple):
    """An entry of an owner index whose session may be gone.

    `was_live`: the session existed once, so its creation is not in progress.
    """

    owner_index: str
    id: str
    was_live: bool


class IndexRemoval:
    """Queues entries whose sessions may be gone, and removes those that are.

    Ids are never reused: the entry of a session that existed once and is gone can be removed at any time. If it is
    unknown whether the session existed, its creation may be in progress, and only an old entry is removed.
    `redis` should not be the client that serves requests.
    """

    def __init__(self, redis: RedisClient, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._queue: dict[StaleEntry, None] = {}  # an ordered set

    def queue_seen_live(self, entries: Iterable[tuple[str, str]]) -> None:
        """Queue ids of sessions that were seen live, each with the key of an owner index."""
        self._enqueue(
            (StaleEntry(owner_index, session_id, was_live=True) for owner_index, session_id in entries), MAX_QUEUED
        )

    def queue_ended(self, session_id: str, agent_id: str, user_id: str) -> None:
        """Queue an ended session that could not be removed from its owner indexes."""
        self.queue_seen_live((owner_index, session_id) for owner_index in self._keys.owner_indexes(agent_id, user_id))

    def queue_missing(self, owner_index: str, session_ids: Iterable[str]) -> None:
        """Queue ids that a reader found in an owner index and whose sessions it did not find."""
        entries = (StaleEntry(owner_index, session_id, was_live=False) for session_id in session_ids)
        self._enqueue(entries, MAX_QUEUED_BY_READERS)

    async def process_queue(self) -> None:
        """Process all queued entries. Raises StoreUnavailable; entries that could not be processed stay queued."""
        failures = PartialFailure()
        for _ in range(0, len(self._queue), _BATCH):
            await self._process(self._next_batch(), failures)
        failures.raise_if_any()

    def _enqueue(self, entries: Iterable[StaleEntry], max_queued: int) -> None:
        for entry in entries:
            if len(self._queue) < max_queued:
                self._queue[entry] = None

    def _next_batch(self) -> list[StaleEntry]:
        """Dequeue a batch. An entry that is queued again meanwhile is processed again."""
        batch = list(islice(self._queue, _BATCH))
        for entry in batch:
            del self._queue[entry]
        return batch

    async def _process(self, entries: Sequence[StaleEntry], failures: PartialFailure) -> None:
        unprocessed: Sequence[StaleEntry] = entries
        try:
            unprocessed = await self._remove_gone(entries, await self._statuses(entries, failures), failures)
        except (ScriptError, UnexpectedReply) as error:  # a key has the wrong type; the other entries are processed
            _log.error("an owner index cannot be repaired: %s", error)
            unprocessed = []
        finally:
            self._enqueue(unprocessed, MAX_QUEUED)

    async def _statuses(self, entries: Sequence[StaleEntry], failures: PartialFailure) -> list[Reply]:
        commands = [scripts.STATUS.command(self._keys.of(entry.id), owner_id="") for entry in entries]
        return await replies_or_none(self._redis.query, commands, failures)

    async def _remove_gone(
        self, entries: Sequence[StaleEntry], statuses: Sequence[Reply], failures: PartialFailure
    ) -> list[StaleEntry]:
        """Remove entries of sessions that are gone. Return the entries that could not be checked or removed."""
        checked = [(entry, status) for entry, status in zip(entries, statuses, strict=True) if status is not None]
        ages_ms = [(entry, _removable_age_ms(entry, status)) for entry, status in checked]
        gone = [(entry, age_ms) for entry, age_ms in ages_ms if age_ms is not None]
        commands = [
            scripts.REMOVE_FROM_INDEX.command_with_keys(
                self._keys.keys_with_ids(entry.owner_index), id=entry.id, min_age_ms=age_ms
            )
            for entry, age_ms in gone
        ]
        replies = await replies_or_none(self._redis.execute, commands, failures)
        unchecked = [entry for entry, status in zip(entries, statuses, strict=True) if status is None]
        return unchecked + [entry for (entry, _), reply in zip(gone, replies, strict=True) if reply is None]


def _removable_age_ms(entry: StaleEntry, status: Reply) -> int | None:
    """The age from which the entry may be removed, or None if it must stay."""
    match status:
        case [b"expired", *_]:
            return 0
        case [b"missing"]:
            return 0 if entry.was_live else REVOCATION_MARKER_MS
        case [b"live", *_] | [b"lost"] | [b"unreadable"]:  # the sweeper removes them after they expire
            return None
        case _:
            raise UnexpectedReply(repr(status))


class IndexedSession(NamedTuple):
    """A live session and the fields that its owner indexes need."""

    id: str
    agent_id: str
    user_id: str
    created_at: bytes


class IndexState(NamedTuple):
    """The scores that an owner index has for its sessions, and its TTL in milliseconds as PTTL returns it."""

    scores: list[float | None]
    ttl_ms: int


async def _query_readable(redis: RedisClient, *commands: Command) -> list[Reply]:
    """Run commands. The reply on an owner index of a wrong type is None, like that of an unavailable node."""
    return await query_readable(redis, commands)


class RepairResult(NamedTuple):
    """How many entries were restored, and the keys of owner indexes that had no TTL."""

    restored: int
    without_ttl: list[str]


class IndexRepair:
    """Restores entries and TTLs of owner indexes. `redis` should not be the client that serves requests."""

    def __init__(
        self, redis: RedisClient, keys: Keys, index_removal: IndexRemoval, *, owner_index_lifetime_ms: int
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._index_removal = index_removal
        self._owner_index_lifetime_ms = owner_index_lifetime_ms

    async def repair(self, sessions: Sequence[IndexedSession], failures: PartialFailure) -> RepairResult:
        """Add sessions that were just read as live to the owner indexes that lack them."""
        sessions_by_index = self._by_owner_index(sessions)
        states = await self._states(sessions_by_index, failures)
        missing = [
            (owner_index, session)
            for owner_index, state in states.items()
            for session, score in zip(sessions_by_index[owner_index], state.scores, strict=True)
            if score is None
        ]
        without_ttl = [owner_index for owner_index, state in states.items() if state.ttl_ms == _NO_TTL]
        await self._set_ttl(without_ttl, failures)
        restored = await self._restore(missing, failures) if missing else 0
        return RepairResult(restored, without_ttl)

    def _by_owner_index(self, sessions: Sequence[IndexedSession]) -> dict[str, list[IndexedSession]]:
        sessions_by_index: defaultdict[str, list[IndexedSession]] = defaultdict(list)
        for session in sessions:
            for owner_index in self._keys.owner_indexes(session.agent_id, session.user_id):
                sessions_by_index[owner_index].append(session)
        return sessions_by_index

    async def _states(
        self, sessions_by_index: Mapping[str, Sequence[IndexedSession]], failures: PartialFailure
    ) -> dict[str, IndexState]:
        """The states of the owner indexes whose nodes respond."""
        scores = [
            ("ZMSCORE", owner_index, *[session.id for session in sessions])
            for owner_index, sessions in sessions_by_index.items()
        ]
        ttls = [("PTTL", owner_index) for owner_index in sessions_by_index]
        replies = await replies_or_none(partial(_query_readable, self._redis), [*scores, *ttls], failures)
        states = zip(sessions_by_index, map(IndexState, replies, replies[len(scores) :]), strict=True)
        return {owner_index: state for owner_index, state in states if None not in state}

    async def _set_ttl(self, owner_indexes: Sequence[str], failures: PartialFailure) -> None:
        """Set the TTL that a creation sets: twice the lifetime, so that it outlives every session in the index."""
        commands = [("PEXPIRE", owner_index, 2 * self._owner_index_lifetime_ms, "NX") for owner_index in owner_indexes]
        await replies_or_none(self._redis.execute, commands, failures)

    async def _restore(self, missing: Sequence[tuple[str, IndexedSession]], failures: PartialFailure) -> int:
        """Add entries, then check again whether their sessions are live, and remove those that are not.

        In a cluster, a session and its owner index may be on different nodes. A deletion, revocation or sweep ends the
        session first and removes the entry afterwards. If it ended the session before the second check, the check
        removes the entry; otherwise its own removal comes after the addition. Returns the number of added entries.
        """
        commands = [self._add_command(owner_index, session) for owner_index, session in missing]
        try:
            replies = await replies_or_none(self._redis.execute, commands, failures)
        finally:  # a command without a reply may have been executed too
            self._index_removal.queue_seen_live((owner_index, session.id) for owner_index, session in missing)
        with suppress(StoreUnavailable):  # entries that could not be checked stay queued
            await self._index_removal.process_queue()
        return len(replies) - replies.count(None)

    def _add_command(self, owner_index: str, session: IndexedSession) -> Command:
        return scripts.ADD_TO_INDEX.command(
            OwnerIndexKeys(owner_index),
            id=session.id,
            owner_index_lifetime_ms=self._owner_index_lifetime_ms,
            created_at=session.created_at,
        )
