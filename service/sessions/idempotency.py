"""Idempotency records: which session the first creation with an Idempotency-Key created.

create.lua writes a record together with its session, in the same slot. The record outlives the session.
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
_KEY_DIGEST = b"idempotency"
_REQUEST_DIGEST = b"fingerprint"


class IdempotencyKey(NamedTuple):
    """A key that a client chose for one creation. Keys of different callers are unrelated."""

    caller: str
    key: str


class IdempotencyRecord(NamedTuple):
    """A record to be written: a digest of the key, a fingerprint of the request, and the lifetime."""

    digest: str
    fingerprint: str
    lifetime_ms: int

    @property
    def shard(self) -> str:
        return self.digest[:2]


class FirstCreation(NamedTuple):
    """The session that the first request with a key created, and the fingerprint of that request."""

    session_id: str
    fingerprint: str


class AlreadyCreated(Exception):  # noqa: N818  (not an error)
    """Another request with the same key created the session during this creation."""

    def __init__(self, first: FirstCreation) -> None:
        super().__init__(first.session_id)
        self.first = first


class IdempotencyRecords:
    """Reads records. Keys and requests are stored as digests with the shared secret."""

    def __init__(self, client: RedisClient, keys: Keys, secret: SharedSecret, *, lifetime_ms: int) -> None:
        self._client = client
        self._keys = keys
        self._secret = secret
        self._lifetime_ms = lifetime_ms

    def record_of(self, key: IdempotencyKey, request: NewSession) -> IdempotencyRecord:
        """Build the record of a request. Raises StoreUnavailable while the shared secret is not loaded."""
        digest = self._secret.digest(json.dumps(key), purpose=_KEY_DIGEST)
        fingerprint = self._secret.digest(_canonical(request), purpose=_REQUEST_DIGEST)
        return IdempotencyRecord(digest, fingerprint, self._lifetime_ms)

    async def first(self, record: IdempotencyRecord) -> FirstCreation | None:
        """Read the first creation with this record, if there was one."""
        (session_id, fingerprint), _ = await self._client.read_hash(self._keys.record(record.digest), _FIELDS)
        return (
            None
            if session_id is None
            else FirstCreation(session_id.decode(errors="replace"), (fingerprint or b"").decode(errors="replace"))
        )

    async def await_replication(self, record: IdempotencyRecord) -> None:
        """Wait until replicas have the record and its session, if the settings require it. Raises StoreUnavailable."""
        await self._client.execute(scripts.AWAIT_REPLICATION.command(RecordKeys(self._keys.record(record.digest))))


def _canonical(request: NewSession) -> str:
    """Serialize a request so that the order of members does not matter.

    Metadata is a separate JSON text: inside a list it would exceed the nesting that orjson supports.
    """
    parts = (request.agent_id, request.user_id, request.timeout, orjson.loads(request.metadata))
    return "\n".join([orjson.dumps(part, option=orjson.OPT_SORT_KEYS).decode() for part in parts])
