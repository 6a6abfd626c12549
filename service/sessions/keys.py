"""The only speller of keys: how the service's data lies in Redis.

Every name begins with `SESSION_KEY_PREFIX` (default: nothing). `{ab}`, the first two characters of a session's id, is
a hash tag: everything about one session lies in one slot of a Redis Cluster. All instants are milliseconds of Redis's
own clock.

| key | type | holds | dies |
|---|---|---|---|
| `session:{ab}:<id>` | hash | agentId userId createdAt lastActivity renewedAt expiresAt timeoutMinutes autoRenew maxDurationMinutes warningThresholdMinutes renewalCount revision metadata | at expiresAt: its TTL is the time remaining |
| `session:{ab}:<id>:tombstone` | hash | agentId userId expiresAt reason | at expiresAt + the tombstone retention |
| `sessions:{ab}:expiry` | zset | id by expiresAt | never; a member leaves when its session is deleted, or swept after its end |
| `sessions:{ab}:warning` | zset | id by expiresAt less the warning threshold | never; likewise |
| `sessions:{ab}:created` | zset | id by createdAt | never; likewise |
| `sessions:user:{<userId>}` | zset | id by the time of its creation | twice the longest life of those it knew, a day added to each |
| `sessions:agent:{<agentId>}` | zset | id by the time of its creation | twice the longest life of those it knew, a day added to each |
| `sessions:user:{<userId>}:ends` | zset | id by the end at which it was last seen to live | with the lookup beside it |
| `sessions:user:{<userId>}:activity` | zset | id by the last activity that it was seen to have | with the lookup beside it |
| `sessions:agent:{<agentId>}:ends` | zset | id by the end at which it was last seen to live | with the lookup beside it |
| `sessions:agent:{<agentId>}:activity` | zset | id by the last activity that it was seen to have | with the lookup beside it |
| `sessions:agent:{<agentId>}:policy` | hash | timeoutMinutes autoRenew maxDurationMinutes warningThresholdMinutes updatedAt | never; it is deleted by request |
| `session:{ab}:idempotency:<digest>` | hash | sessionId fingerprint | `SESSION_IDEMPOTENCY_MINUTES` after its creation |
| `sessions:layout` | string | the version of this table | never |
| `sessions:secret` | string | 64 random hex digits that all replicas share | never |
| `sessions:address:{<address>}:requests` | string | when its bucket is full again, in microseconds | then |
| `sessions:address:{<address>}:guesses` | string | likewise | then |
| `sessions:caller:{<caller>}:requests` | string | likewise | then |
| `sessions:caller:{<caller>}:guesses` | string | likewise | then |

A policy holds those of its members that were given, and when that was. Once an ended session is swept, its tombstone
keeps only what a 410 needs: expiresAt and reason. Where a session was found lost (its hash is gone before its end) its
tombstone holds lostAt too, the instant when that was counted, until it is swept.

The `ends` and the `activity` of a user or an agent are there only where there is a cap on their sessions, `activity` only
where it evicts. They hold what their lookup holds, and bounds: an id lives no longer than its end says, but for renewals
since, and was active then or later. Where one holds another number of ids than its lookup, as when replicas without caps
put some there or took some out, it is made to hold the same before it is relied on. So they may be deleted at any time.

Buckets are there only while something is missing in them, and only where requests are limited. An address is one of IPv4, or
an IPv6 network of 64 bits; a caller is `key:` and its name, or `token:` and its `sub` (where that is long or odd, `#` and a hash).

A creation that came with an `Idempotency-Key` leaves a record at the keyed hash of its caller and key, whose first two
digits the session's id begins with: which session it was, and a keyed hash of what was asked for.

A bulk revocation, or a creation under a cap, that meets an id before its session is there may leave a mark in the
tombstone's place, which refuses the creation: a hash of `revokedAt` alone that dies ten minutes after it. To every
reader it is no tombstone.

Replicas of different versions work side by side on one layout, during a rolling update and for as long as you like.
So there are two kinds of change to this table, and the version tells them apart:

- *Additions* keep the version. A field, or a kind of key with an end of its own, may be added if replicas that do not
  know it may leave it as it is, nothing goes wrong where it is missing (they create sessions without it), and what they
  do know still means the same. Readers ask for the fields they know, by name; writers never replace a whole hash and
  never delete a field they do not know, except with its key; a value that one does not know (the reason of an end) is
  passed on. A script may change at will: it is found by its own hash, so each version runs its own.
- *Everything else* needs the next version: a field or key renamed or removed, a type, unit, score or meaning changed, a
  member that must be there. Stop all replicas, move the data, write the new version to `sessions:layout`, and start the
  new ones. A replica that finds a version it does not know is not ready and says which, takes no requests (503) and
  sweeps nothing. It looks before each sweep and whenever it is asked whether it is ready, so for some seconds it may go
  on with what it knew: hence "stop all" comes first.
"""  # noqa: E501  (a table's row is one line)

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal, NamedTuple

SCHEMA_VERSION = "1"

REVOCATION_MARKER_MS = 600_000
"""How long a mark refuses the creation that it met; none is on its way for as long as that."""

SHARDS = tuple(f"{number:02x}" for number in range(256))


class SessionKeys(NamedTuple):
    """The keys of one session and of the shard it lies in; all of them share one slot."""

    session: str
    tombstone: str
    expiry: str
    warning: str
    created: str


class RepeatableKeys(NamedTuple):
    """The same of a session whose creation may be repeated, and its record."""

    session: str
    tombstone: str
    expiry: str
    warning: str
    created: str
    record: str


class RecordKeys(NamedTuple):
    """The key of a record alone, which lies in the slot of its session."""

    record: str


class OwnerIndexKeys(NamedTuple):
    """The key of one user's or one agent's lookup, which lies in a slot of its own."""

    owner_index: str


class BucketKeys(NamedTuple):
    """The key of a bucket, and of one of the same subject's that may bar the way to it; both share one slot."""

    bucket: str
    bar: str


class CountedKeys(NamedTuple):
    """The keys of a lookup under a cap and of what is known beside it, all in one slot; the lookup's comes last."""

    ends: str
    activity: str
    owner_index: str


class Keys:
    """Spells every key, behind one prefix. `capped`: there are caps, so lookups have other keys beside them."""

    def __init__(self, prefix: str, *, capped: bool = False) -> None:
        self.capped = capped
        self._session = f"{prefix}session:{{"
        self._sessions = f"{prefix}sessions:"
        self.layout = f"{prefix}sessions:layout"
        self.secret = f"{prefix}sessions:secret"
        self._indexes = {shard: self._indexes_of(shard) for shard in SHARDS}

    def session(self, session_id: str) -> str:
        return f"{self._session}{session_id[:2]}}}:{session_id}"

    def tombstone(self, session_id: str) -> str:
        return f"{self._session}{session_id[:2]}}}:{session_id}:tombstone"

    def of(self, session_id: str) -> SessionKeys:
        shard = session_id[:2]
        session = f"{self._session}{shard}}}:{session_id}"
        indexes = self._indexes.get(shard) or self._indexes_of(shard)  # of no shard is what others put there by hand
        return SessionKeys._make((session, f"{session}:tombstone", *indexes))

    def with_record(self, session_id: str, digest: str) -> RepeatableKeys:
        """They share a slot where the id begins as the digest does."""
        return RepeatableKeys(*self.of(session_id), self.record(digest))

    def record(self, digest: str) -> str:
        return f"{self._session}{digest[:2]}}}:idempotency:{digest}"

    def expiry(self, shard: str) -> str:
        return f"{self._sessions}{{{shard}}}:expiry"

    def warning(self, shard: str) -> str:
        return f"{self._sessions}{{{shard}}}:warning"

    def created(self, shard: str) -> str:
        return f"{self._sessions}{{{shard}}}:created"

    def user(self, user_id: str) -> str:
        return f"{self._sessions}user:{{{user_id}}}"

    def owner_indexes(self, agent_id: str | None, user_id: str | None) -> list[str]:
        """Of the user and the agent where they are given: the user's first, which is likely the shorter."""
        user = [] if user_id is None else [self.user(user_id)]
        agent = [] if agent_id is None else [self.agent(agent_id)]
        return user + agent

    def agent(self, agent_id: str) -> str:
        return f"{self._sessions}agent:{{{agent_id}}}"

    def beside(self, owner_index: str) -> CountedKeys:
        return CountedKeys(f"{owner_index}:ends", f"{owner_index}:activity", owner_index)

    def holding(self, owner_index: str) -> tuple[str, ...]:
        """The keys that an id leaves when it leaves a lookup, in the order in which it does."""
        return self.beside(owner_index) if self.capped else (owner_index,)

    def policy(self, agent_id: str) -> str:
        return f"{self._sessions}agent:{{{agent_id}}}:policy"

    def requests(self, kind: Literal["address", "caller"], subject: str) -> BucketKeys:
        """Of what an address or a caller may ask, barred by guesses."""
        bucket = f"{self._sessions}{kind}:{{{subject}}}:"
        return BucketKeys(f"{bucket}requests", f"{bucket}guesses")

    def failed_lookups(self, kind: Literal["address", "caller"], subject: str) -> BucketKeys:
        """Of how often one of them may guess; nothing else bars that."""
        bucket = f"{self._sessions}{kind}:{{{subject}}}:guesses"
        return BucketKeys(bucket, bucket)

    def _indexes_of(self, shard: str) -> tuple[str, str, str]:
        return self.expiry(shard), self.warning(shard), self.created(shard)


def group_by_shard(session_ids: Iterable[str]) -> list[list[str]]:
    """Group ids by shard: all ids of a group are on the same node."""
    shards: defaultdict[str, list[str]] = defaultdict(list)
    for session_id in session_ids:
        shards[session_id[:2]].append(session_id)
    return list(shards.values())
