"""Records: which session came of the first creation with a client's key, so that repeating it makes no other.

A record lies in the slot of its session and is written with it, and so it is one of both or neither. It outlives the
session: what was once created is not created again, whatever has become of it.
"""

import json
from typing import NamedTuple

import orjson

from service.redis_client.client import RedisClient
from service.sessions import scripts
from service.sessions.keys import Keys, RecordKeys
from service.sessions.session import NewSession
from service.shared_secret import SharedSecret

_FIELDS = (b"sessionId", b"fingerprint")
_OF_KEYS = b"idempotency"
_OF_REQUESTS = b"fingerprint"


class IdempotencyKey(NamedTuple):
    """A client's name for one creation, among those of the same caller; nobody is told it."""

    caller: str
    key: str


class IdempotencyRecord(NamedTuple):
    """Where it will be written which session was created, by which request, and for how long."""

    digest: str
    fingerprint: str
    lifetime_ms: int

    @property
    def shard(self) -> str:
        return self.digest[:2]


class FirstCreation(NamedTuple):
    """What was written by whoever came first: the session, and the fingerprint of the request."""

    session_id: str
    fingerprint: str


class AlreadyCreated(Exception):  # noqa: N818  (it is an answer)
    """Another has created the session while this creation was looking for its place."""

    def __init__(self, first: FirstCreation) -> None:
        super().__init__(first.session_id)
        self.first = first


class IdempotencyRecords:
    """Keys and requests are kept as keyed hashes: nobody can try which they were."""

    def __init__(self, redis: RedisClient, keys: Keys, secret: SharedSecret, *, lifetime_ms: int) -> None:
        self._redis = redis
        self._keys = keys
        self._secret = secret
        self._life_ms = lifetime_ms

    def record_of(self, key: IdempotencyKey, new_session: NewSession) -> IdempotencyRecord:
        """Raises StoreUnavailable while the secret is not known."""
        digest = self._secret.digest(json.dumps(key), purpose=_OF_KEYS)
        return IdempotencyRecord(
            digest, self._secret.digest(_in_one_form(new_session), purpose=_OF_REQUESTS), self._life_ms
        )

    async def first(self, record: IdempotencyRecord) -> FirstCreation | None:
        """Raises StoreUnavailable."""
        (session_id, fingerprint), _ = await self._redis.read_hash(self._keys.record(record.digest), _FIELDS)
        return None if session_id is None else FirstCreation(session_id.decode(), (fingerprint or b"").decode())

    async def await_replication(self, record: IdempotencyRecord) -> None:
        """Where changes wait for replicas, wait until they have it, and its session. Raises StoreUnavailable."""
        await self._redis.execute(scripts.AWAIT_REPLICATION.command(RecordKeys(self._keys.record(record.digest))))


def _in_one_form(new_session: NewSession) -> str:
    """The same for all requests that ask for the same: members have no order.

    Metadata is written by itself: it may be nested as deeply as can be written, and no deeper within a list.
    """
    parts = (*new_session[:-1], orjson.loads(new_session.metadata))
    return "\n".join([orjson.dumps(part, option=orjson.OPT_SORT_KEYS).decode() for part in parts])
