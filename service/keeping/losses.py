"""Sessions whose hash is gone before their end: each is counted once, over all replicas, whoever finds it."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from contextvars import Context

from service.errors import StoreUnavailable
from service.lanes.lane import Lane, Reply, ScriptFault, UnknownAnswer
from service.lanes.outages import Outages, all_of, by_shard
from service.life import scripts
from service.life.keys import Keys
from service.life.lifecycle import Lifecycle

MAX_WAITING = 300
"""How many that requests met wait to be counted; more are left to the reconciler."""

_log = logging.getLogger(__name__)


class Losses:
    """Marks lost sessions over `lane`, which should not be the requests' own."""

    def __init__(self, lane: Lane, keys: Keys, lifecycle: Lifecycle) -> None:
        self._lane = lane
        self._keys = keys
        self._lifecycle = lifecycle
        self._waiting: set[str] = set()
        self._counting: asyncio.Task[None] | None = None

    def met(self, session_id: str) -> None:
        """Count one that a request met, at once, and not in the way of its answer: trouble is nobody's."""
        if len(self._waiting) < MAX_WAITING:
            self._waiting.add(session_id)
        if self._counting is None:
            self._counting = asyncio.create_task(self._count_waiting(), context=Context())

    async def count(self, session_ids: Sequence[str]) -> None:
        """Count those among them that are lost and are not counted yet. Raises StoreUnavailable and ScriptFault."""
        outages = Outages()
        await all_of(self._count(shard, outages) for shard in by_shard(session_ids))
        outages.tell()

    async def _count(self, session_ids: Sequence[str], outages: Outages) -> None:
        """Those of one shard. What was marked and not counted nobody would count any more."""
        commands = [scripts.LOSE.command(self._keys.of(session_id), id=session_id) for session_id in session_ids]
        answers: list[Reply] = []
        with outages:
            answers = await self._lane.change(*commands)
        for session_id, answer in zip(session_ids, answers, strict=False):  # there are none in an outage
            match answer:
                case [b"lost"]:
                    self._lifecycle.ended(session_id, "lost")
                case [b"known"] | [b"living"] | [b"expired", *_] | [b"missing"]:
                    pass
                case _:
                    raise UnknownAnswer(repr(answer))

    async def aclose(self) -> None:
        """Count what waits still."""
        if self._counting is not None:
            await asyncio.wait([self._counting])

    async def _count_waiting(self) -> None:
        try:
            while self._waiting:
                met, self._waiting = list(self._waiting), set()
                with suppress(StoreUnavailable):  # the log has it; the reconciler comes by
                    await self.count(met)
        except (ScriptFault, UnknownAnswer) as error:
            _log.error("a lost session cannot be counted: %s", error)
        finally:
            self._counting = None
