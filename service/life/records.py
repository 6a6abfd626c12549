"""Records: which session came of the first creation with a client's key, so that repeating it makes no other.

A record lies in the slot of its session and is written with it, and so it is one of both or neither. It outlives the
session: what was once created is not created again, whatever has become of it.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple

import orjson

from service.lanes.lane import Lane
from service.life import scripts
from service.life.keys import Keys, RecordKeys
from service.life.sessions import Session
from service.secret import Secret

_FIELDS = (b"sessionId", b"fingerprint")
_OF_KEYS = b"idempotency"
_OF_REQUESTS = b"fingerprint"


class CreationKey(NamedTuple):
    """A client's name for one creation, among those of the same caller; nobody is told it."""

    caller: str
    key: str


class Wish(NamedTuple):
    """What is asked for of a session. `changes` are members of TimeoutConfig, `metadata` is a JSON object."""

    agent_id: str
    user_id: str
    changes: Mapping[str, float | bool]
    metadata: bytes


class Record(NamedTuple):
    """Where it will be written which session was created, by which request, and for how long."""

    digest: str
    fingerprint: str
    life_ms: int

    @property
    def shard(self) -> str:
        return self.digest[:2]


class First(NamedTuple):
    """What was written by whoever came first: the session, and the fingerprint of the request."""

    session_id: str
    fingerprint: str


class CameFirst(Exception):  # noqa: N818  (it is an answer)
    """Another has created the session while this creation was looking for its place."""

    def __init__(self, first: First) -> None:
        super().__init__(first.session_id)
        self.first = first


class Created(NamedTuple):
    """The session, and whether it had been created before."""

    session: Session
    is_repeated: bool


class Records:
    """Keys and requests are kept as keyed hashes: nobody can try which they were."""

    def __init__(self, lane: Lane, keys: Keys, secret: Secret, *, life_ms: int) -> None:
        self._lane = lane
        self._keys = keys
        self._secret = secret
        self._life_ms = life_ms

    def record_of(self, key: CreationKey, wish: Wish) -> Record:
        """Raises StoreUnavailable while the secret is not known."""
        digest = self._secret.digest(json.dumps(key), person=_OF_KEYS)
        return Record(digest, self._secret.digest(_in_one_form(wish), person=_OF_REQUESTS), self._life_ms)

    async def first(self, record: Record) -> First | None:
        """Raises StoreUnavailable."""
        (session_id, fingerprint), _ = await self._lane.read(self._keys.record(record.digest), _FIELDS)
        return None if session_id is None else First(session_id.decode(), (fingerprint or b"").decode())

    async def vouch(self, record: Record) -> None:
        """Where changes wait for replicas, wait until they have it, and its session. Raises StoreUnavailable."""
        await self._lane.change(scripts.VOUCH.command(RecordKeys(self._keys.record(record.digest))))


def _in_one_form(wish: Wish) -> str:
    """The same for all requests that ask for the same: members have no order.

    Metadata is written by itself: it may be nested as deeply as can be written, and no deeper within a list.
    """
    parts = (*wish[:-1], orjson.loads(wish.metadata))
    return "\n".join([orjson.dumps(part, option=orjson.OPT_SORT_KEYS).decode() for part in parts])
