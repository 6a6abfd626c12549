"""Takes out of lookups the ids of sessions that are proven to be gone: what was left behind, and what readers met.

An id is never used again, so one that has lived and lives no more never will: once its session is seen to be gone it
may leave its lookups at any time. Of one that is not known to have lived a creation may be on its way.
"""

import logging
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from service.redis_client.client import PartialFailure, RedisClient, Reply, replies_or_none
from service.redis_client.errors import ScriptError, UnexpectedReply
from service.sessions import scripts
from service.sessions.keys import REVOCATION_MARKER_MS, Keys

MAX_SUSPECTS = 10_000
"""How many ids one replica keeps in mind; more are left to the readers that meet them again."""

MAX_MET = 1000
"""How many it keeps before it leaves those that readers meet to their next reader."""

ROUND_SECONDS = 5
_BATCH = 100

_log = logging.getLogger(__name__)


class Suspect(NamedTuple):
    """An id in a lookup, whose session may be gone; `lived`: it was seen to live, so no creation is on its way."""

    owner_index: str
    id: str
    lived: bool


class IndexRemoval:
    """Keeps suspects in mind and settles them over `lane`, which should not be the requests' own."""

    def __init__(self, redis: RedisClient, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._suspects: dict[Suspect, None] = {}  # the one that was settled least lately comes first

    def have_lived(self, listed: Iterable[tuple[str, str]]) -> None:
        """Suspect ids of sessions that were seen to live, each with the key of the lookup that may list it."""
        self._suspect(
            (Suspect(owner_index, session_id, lived=True) for owner_index, session_id in listed), MAX_SUSPECTS
        )

    def left_behind(self, session_id: str, agent_id: str, user_id: str) -> None:
        """Suspect the id of a session that was ended, and could not be taken out of its lookups."""
        self.have_lived((owner_index, session_id) for owner_index in self._keys.owner_indexes(agent_id, user_id))

    def met(self, owner_index: str, session_ids: Iterable[str]) -> None:
        """Suspect ids that a reader met in the lookup and whose sessions it did not find."""
        self._suspect((Suspect(owner_index, session_id, lived=False) for session_id in session_ids), MAX_MET)

    async def round(self) -> None:
        """Settle all suspects. Raises StoreUnavailable for those that cannot be settled now; they are kept in mind."""
        failures = PartialFailure()
        for _ in range(0, len(self._suspects), _BATCH):
            await self._settle(self._next_batch(), failures)
        failures.raise_if_any()

    def _suspect(self, suspects: Iterable[Suspect], most: int) -> None:
        for suspect in suspects:
            if len(self._suspects) < most:
                self._suspects[suspect] = None

    def _next_batch(self) -> list[Suspect]:
        """Out of mind while they are looked at: one that is suspected anew meanwhile is looked at anew."""
        batch = list(islice(self._suspects, _BATCH))
        for suspect in batch:
            del self._suspects[suspect]
        return batch

    async def _settle(self, suspects: Sequence[Suspect], failures: PartialFailure) -> None:
        unsettled: Sequence[Suspect] = suspects
        try:
            unsettled = await self._delist(suspects, await self._judged(suspects, failures), failures)
        except (ScriptError, UnexpectedReply) as error:  # a lookup that was tampered with; the others are done
            _log.error("a lookup cannot be set right: %s", error)
            unsettled = []
        finally:
            self._suspect(unsettled, MAX_SUSPECTS)

    async def _judged(self, suspects: Sequence[Suspect], failures: PartialFailure) -> list[Reply]:
        """What judge.lua says of each; None where it could not be asked."""
        commands = [scripts.STATUS.command(self._keys.of(suspect.id), owner_id="") for suspect in suspects]
        return await replies_or_none(self._redis.query, commands, failures)

    async def _delist(
        self, suspects: Sequence[Suspect], answers: Sequence[Reply], failures: PartialFailure
    ) -> list[Suspect]:
        """Take out those that are proven to be gone; which could not be judged or taken out."""
        judged = [(suspect, answer) for suspect, answer in zip(suspects, answers, strict=True) if answer is not None]
        ages_ms = [(suspect, _age_that_proves(suspect, answer)) for suspect, answer in judged]
        gone = [(suspect, age_ms) for suspect, age_ms in ages_ms if age_ms is not None]
        commands = [
            scripts.REMOVE_FROM_INDEX.command_with_keys(
                self._keys.keys_with_ids(suspect.owner_index), id=suspect.id, min_age_ms=age_ms
            )
            for suspect, age_ms in gone
        ]
        replies = await replies_or_none(self._redis.execute, commands, failures)
        unjudged = [suspect for suspect, answer in zip(suspects, answers, strict=True) if answer is None]
        return unjudged + [suspect for (suspect, _), reply in zip(gone, replies, strict=True) if reply is None]


def _age_that_proves(suspect: Suspect, answer: Reply) -> int | None:
    """How long ago an id must have been listed to be out of place, in milliseconds; None where it is in its place."""
    match answer:
        case [b"expired", *_]:
            return 0
        case [b"missing"]:
            return 0 if suspect.lived else REVOCATION_MARKER_MS
        case [b"live", *_] | [b"lost"] | [b"unreadable"]:  # the sweeper takes them out at their end
            return None
        case _:
            raise UnexpectedReply(repr(answer))
