"""The data model: every key in Redis, and the names of keys.

Names begin with SESSION_KEY_PREFIX, which is empty by default. `{ab}` is a hash tag with the first two characters of the
session id, the *shard*: all keys with the same tag are in one slot of a Redis Cluster. Times are milliseconds of the
Redis server's clock.

| key | type | fields or members | lifetime |
|---|---|---|---|
| `session:{ab}:<id>` | hash | agentId userId createdAt lastActivity renewedAt expiresAt timeoutMinutes autoRenew maxDurationMinutes warningThresholdMinutes renewalCount revision metadata | until expiresAt |
| `session:{ab}:<id>:tombstone` | hash | agentId userId expiresAt reason | until expiresAt plus SESSION_TOMBSTONE_RETENTION_MINUTES |
| `session:{ab}:<id>:messages` | stream | id authorId isAgent content attachments metadata inReplyTo thought actions clientMessageId | latest possible end of the session plus SESSION_TOMBSTONE_RETENTION_MINUTES; shortened when the ended session is swept |
| `session:{ab}:<id>:sends` | hash | agentId userId, and `user:<clientMessageId>` `agent:<clientMessageId>` `answer:<messageId>` `chunks:<messageId>` `cancelled:<messageId>` | as the messages |
| `session:{ab}:<id>:chunks` | stream | messageId index chunk, or messageId cancelled | one minute after the last entry |
| `session:{ab}:idempotency:<digest>` | hash | sessionId fingerprint | SESSION_IDEMPOTENCY_MINUTES |
| `sessions:{ab}:expiry` | zset | id by expiresAt | permanent; deletion and the sweeper remove ids |
| `sessions:{ab}:warning` | zset | id by expiresAt minus the warning threshold | permanent; deletion and the sweeper remove ids |
| `sessions:{ab}:created` | zset | id by createdAt | permanent; deletion and the sweeper remove ids |
| `sessions:{ab}:outbox` | zset | `<agentId> <sessionId> <messageId>` by the time of the next dispatch | longest possible lifetime of a message after the last addition |
| `sessions:user:{<userId>}` | zset | id by creation time | twice the longest possible lifetime of its sessions plus a day |
| `sessions:user:{<userId>}:ends` | zset | id by the expiry last read | as the owner index |
| `sessions:user:{<userId>}:activity` | zset | id by the activity last read | as the owner index |
| `sessions:agent:{<agentId>}` | zset | id by creation time | twice the longest possible lifetime of its sessions plus a day |
| `sessions:agent:{<agentId>}:ends` | zset | id by the expiry last read | as the owner index |
| `sessions:agent:{<agentId>}:activity` | zset | id by the activity last read | as the owner index |
| `sessions:agent:{<agentId>}:policy` | hash | timeoutMinutes autoRenew maxDurationMinutes warningThresholdMinutes updatedAt | permanent; deleted by request |
| `sessions:agent:{<agentId>}:inbox` | zset | `<sessionId> <messageId>` by the time from which it may be delivered | longest possible lifetime of a message after the last addition |
| `sessions:agent:{<agentId>}:attempts` | hash | number of deliveries by member of the inbox | as the inbox |
| `sessions:layout` | string | schema version | permanent |
| `sessions:secret` | string | shared secret: 64 hex digits | permanent |
| `sessions:address:{<address>}:requests` | string | time in microseconds at which the bucket is full | until then |
| `sessions:address:{<address>}:guesses` | string | the same for failed lookups | until then |
| `sessions:caller:{<caller>}:requests` | string | time in microseconds at which the bucket is full | until then |
| `sessions:caller:{<caller>}:guesses` | string | the same for failed lookups | until then |

- **Tombstones** make 410 possible after the hash has expired. The sweeper removes all fields except expiresAt and reason.
  It adds `ownerHash`, a hash of the key and the user id, so that a request with the user's token still returns 410.
  If the hash disappears early, the session is lost, and `lostAt` records when it was counted.
- **Markers** are hashes in place of a tombstone that hold only `revokedAt` and expire after ten minutes. They refuse the
  creation of a session whose id was revoked, or was given up under a cap, before the session existed.
- **Messages** have the time of their creation as stream id, `<ms>-0`. It is unique and increasing within a session. The id
  of a user's message is a UUIDv7 of the same time, so that the message is found by its id.
- **The outbox** holds messages until they are in the inbox of their agent, which is in another slot. The dispatcher
  removes an entry after the addition, so that a message is in the inbox at least once.
- **Inboxes** hold deliveries. A delivery moves ahead by SESSION_INBOX_LEASE_SECONDS when it is leased, and is removed when
  it is completed. Followed by ` cancel`, a member is the cancellation of a message.
- **Channels** for sharded pub/sub are `sessions:{ab}:live` and `sessions:agent:{<agentId>}:live`. Their messages only
  announce that a key changed.
- **Policies** hold only the members that were set.
- **Owner indexes** are the sets of a user and of an agent. With caps, `:ends` holds the same ids by a time until which a
  session counts as live. With eviction, `:activity` holds them by a lower bound of their last activity. Both may be
  deleted at any time: a script rebuilds them if their size differs from the owner index.
- **Idempotency records** are in the slot of their session: its id starts with the first two digits of the digest of the
  caller and the key. The fingerprint is a digest of the request.
- **Buckets** exist only while they are not full. An address is an IPv4 address or an IPv6 /64 network. A caller is `key:`
  and the name of an API key, or `token:` and the subject of a token, hashed if it is long or contains other characters.

Replicas of different releases share one schema version:

- An *addition* keeps the version: a field, or a kind of key with a lifetime. Replicas without it must be able to ignore
  it, and nothing may require it. Readers name the fields that they read. Writers neither replace whole hashes nor delete
  unknown fields, and pass on unknown values such as a new expiry reason. Scripts may change, because they are found by
  hash and each release runs its own.
- Any *other change* needs the next version: a field or key that is renamed, removed or required, or a type, unit, score
  or meaning that changes. Stop all replicas, migrate the data, write the new version to `sessions:layout`, then start
  the new replicas. A replica that finds an unknown version is not ready, answers 503 and sweeps nothing. It notices
  within seconds, so stop all replicas first.
"""  # noqa: E501  (a row of the table is one line)

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal, NamedTuple

SCHEMA_VERSION = "1"

REVOCATION_MARKER_MS = 600_000
"""The lifetime of a marker. No creation takes that long."""

SHARDS = tuple(f"{number:02x}" for number in range(256))


class SessionKeys(NamedTuple):
    """The keys of a session and the indexes of its shard, in one slot."""

    session: str
    tombstone: str
    expiry: str
    warning: str
    created: str
    messages: str
    sends: str
    chunks: str
    outbox: str


class SessionAndRecordKeys(NamedTuple):
    """The same keys and that of the idempotency record, in one slot."""

    session: str
    tombstone: str
    expiry: str
    warning: str
    created: str
    messages: str
    sends: str
    chunks: str
    outbox: str
    record: str


class RecordKeys(NamedTuple):
    """The key of an idempotency record."""

    record: str


class OwnerIndexKeys(NamedTuple):
    """The key of an owner index."""

    owner_index: str


class CappedIndexKeys(NamedTuple):
    """The keys of an owner index under a cap, in one slot. The index comes last."""

    ends: str
    activity: str
    owner_index: str


class OutboxKeys(NamedTuple):
    """The key of one shard's outbox."""

    outbox: str


class InboxKeys(NamedTuple):
    """The keys of an agent's inbox, in one slot."""

    inbox: str
    attempts: str


class PolicyKeys(NamedTuple):
    """The key of an agent's policy."""

    policy: str


class BucketKeys(NamedTuple):
    """The key of a bucket, and of a bucket that blocks it while empty, in one slot."""

    bucket: str
    blocked_by: str


class Keys:
    """Builds key names. `capped` states whether owner indexes have sets for caps beside them."""

    def __init__(self, prefix: str, *, capped: bool = False) -> None:
        self.capped = capped
        self._session = f"{prefix}session:{{"
        self._sessions = f"{prefix}sessions:"
        self.layout = f"{prefix}sessions:layout"
        self.secret = f"{prefix}sessions:secret"
        self._shard_keys = {shard: self._keys_of_shard(shard) for shard in SHARDS}

    def of(self, session_id: str) -> SessionKeys:
        shard = session_id[:2]
        session = f"{self._session}{shard}}}:{session_id}"
        # Ids added by hand may have other shards.
        expiry, warning, created, outbox = self._shard_keys.get(shard) or self._keys_of_shard(shard)
        messages, sends, chunks = f"{session}:messages", f"{session}:sends", f"{session}:chunks"
        tombstone = f"{session}:tombstone"
        return SessionKeys(session, tombstone, expiry, warning, created, messages, sends, chunks, outbox)

    def session(self, session_id: str) -> str:
        return f"{self._session}{session_id[:2]}}}:{session_id}"

    def tombstone(self, session_id: str) -> str:
        return f"{self._session}{session_id[:2]}}}:{session_id}:tombstone"

    def record(self, digest: str) -> str:
        return f"{self._session}{digest[:2]}}}:idempotency:{digest}"

    def with_record(self, session_id: str, digest: str) -> SessionAndRecordKeys:
        """The keys of a session and its record. The id and the digest must start alike."""
        return SessionAndRecordKeys(*self.of(session_id), self.record(digest))

    def expiry(self, shard: str) -> str:
        return f"{self._sessions}{{{shard}}}:expiry"

    def warning(self, shard: str) -> str:
        return f"{self._sessions}{{{shard}}}:warning"

    def created(self, shard: str) -> str:
        return f"{self._sessions}{{{shard}}}:created"

    def outbox(self, shard: str) -> str:
        return f"{self._sessions}{{{shard}}}:outbox"

    def channel(self, session_id: str) -> str:
        """The channel that announces changes of a session."""
        return f"{self._sessions}{{{session_id[:2]}}}:live"

    def inbox(self, agent_id: str) -> InboxKeys:
        agent = self.agent(agent_id)
        return InboxKeys(f"{agent}:inbox", f"{agent}:attempts")

    def inbox_channel(self, agent_id: str) -> str:
        """The channel that announces changes of an inbox."""
        return f"{self.agent(agent_id)}:live"

    def user(self, user_id: str) -> str:
        return f"{self._sessions}user:{{{user_id}}}"

    def agent(self, agent_id: str) -> str:
        return f"{self._sessions}agent:{{{agent_id}}}"

    def owner_indexes(self, agent_id: str | None, user_id: str | None) -> list[str]:
        """The indexes of the given owners. The user's comes first, because it is usually shorter."""
        user = [] if user_id is None else [self.user(user_id)]
        agent = [] if agent_id is None else [self.agent(agent_id)]
        return user + agent

    def capped_index(self, owner_index: str) -> CappedIndexKeys:
        return CappedIndexKeys(f"{owner_index}:ends", f"{owner_index}:activity", owner_index)

    def keys_with_ids(self, owner_index: str) -> tuple[str, ...]:
        """The keys to remove an id from, in this order, to remove it from an owner index."""
        return self.capped_index(owner_index) if self.capped else (owner_index,)

    def policy(self, agent_id: str) -> str:
        return f"{self._sessions}agent:{{{agent_id}}}:policy"

    def requests(self, kind: Literal["address", "caller"], subject: str) -> BucketKeys:
        """The bucket of requests, blocked by that of failed lookups."""
        bucket = f"{self._sessions}{kind}:{{{subject}}}:"
        return BucketKeys(f"{bucket}requests", f"{bucket}guesses")

    def failed_lookups(self, kind: Literal["address", "caller"], subject: str) -> BucketKeys:
        """The bucket of failed lookups, which no other bucket blocks."""
        bucket = f"{self._sessions}{kind}:{{{subject}}}:guesses"
        return BucketKeys(bucket, bucket)

    def _keys_of_shard(self, shard: str) -> tuple[str, str, str, str]:
        return self.expiry(shard), self.warning(shard), self.created(shard), self.outbox(shard)


def group_by_shard(session_ids: Iterable[str]) -> list[list[str]]:
    """Group ids by shard: all ids of a group are on the same node."""
    shards: defaultdict[str, list[str]] = defaultdict(list)
    for session_id in session_ids:
        shards[session_id[:2]].append(session_id)
    return list(shards.values())
