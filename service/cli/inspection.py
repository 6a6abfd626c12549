"""Reads what `inspect` shows: one session with all its keys in Redis, the sessions of an owner, or an overview."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from service.errors import AgentPolicyNotFound, SessionExpired, SessionNotFound
from service.maintenance.startup_checks import server_infos, server_name
from service.redis_client.client import RedisClient, query_readable
from service.redis_client.scripts import Command
from service.sessions.counts import SessionCounts, ShardCount
from service.sessions.keys import Keys
from service.sessions.listing import SessionFilter, SessionListing
from service.sessions.policies import Policies, Policy
from service.sessions.session import Session, is_issued_id, is_readable
from service.sessions.store import SessionStore, UnreadableSession
from service.settings.redis_url import redis_cli, summed_over_shards
from service.shared_secret import SharedSecret
from service.timestamps import format_duration, ms_from_time_reply

TIMESTAMP_FIELDS = frozenset(("createdAt", "lastActivity", "renewedAt", "expiresAt", "revokedAt", "lostAt"))
"""Fields of the hashes of a session that contain timestamps."""

State = Literal["live", "expired", "lost", "mark", "unreadable", "unknown"]
"""`mark` is a revocation marker."""

_LOST = "The session is lost: its hash disappeared before it expired. It was evicted, deleted, or lost with its server."
_MARKER = "This is a revocation marker: a bulk revocation ended the session during its creation."
_UNREADABLE = "The session is unreadable: a key has an unexpected type, or a field an unexpected value. Delete it."
_UNKNOWN = (
    "The session is unknown: it never existed, was deleted or revoked, or expired so long ago that its retention is "
    "over."
)


class StoredHash(NamedTuple):
    """A hash in Redis. `ttl_ms` is the reply to PTTL: -1 without a TTL, -2 without the key."""

    key: str
    fields: Mapping[str, str]
    ttl_ms: int


class IndexEntry(NamedTuple):
    """The entry of a session in an index. `score_ms` is None if the index does not contain the session."""

    name: str
    key: str
    score_ms: int | None


class SessionReport(NamedTuple):
    """Everything in Redis about one session. `log_hash` is None if Redis has no shared secret yet."""

    session_id: str
    log_hash: str | None
    state: State
    detail: str
    session: StoredHash
    tombstone: StoredHash
    entries: Sequence[IndexEntry]
    now_ms: int

    def redis_cli_lines(self, url: str) -> list[str]:
        hashes = [hash_ for hash_ in (self.session, self.tombstone) if hash_.key]
        return [redis_cli(url, command, hash_.key) for hash_ in hashes for command in ("HGETALL", "PTTL")]


class ListReport(NamedTuple):
    """The first of the matching sessions. `total` is an upper bound; `policy` is that of the agent of the filter."""

    session_filter: SessionFilter
    sessions: Sequence[Session]
    total: int
    has_more: bool
    policy: Policy | None
    owner_indexes: Sequence[str]
    policy_key: str | None

    def redis_cli_lines(self, url: str) -> list[str]:
        policies = [redis_cli(url, "HGETALL", self.policy_key)] if self.policy_key else []
        return [redis_cli(url, "ZRANGE", owner_index, "0", "-1") for owner_index in self.owner_indexes] + policies


class OverviewReport(NamedTuple):
    """The numbers of sessions, and the first of them. `server` is None if the Redis user may not run INFO."""

    server: str | None
    counts: ShardCount
    near_expiration: int
    oldest_expiry_ms: int | None
    listing: ListReport
    expiry_keys: str
    now_ms: int

    def redis_cli_lines(self, url: str) -> list[str]:
        return [redis_cli(url), summed_over_shards(url, "ZCOUNT", self.expiry_keys, f"({self.now_ms}", "+inf")]


Report = SessionReport | ListReport | OverviewReport

Outcome = Session | SessionExpired | SessionNotFound | Literal["unreadable"]

_NO_HASH = StoredHash("", {}, -2)


class Inspection:
    """Reads reports and changes nothing. Raises StoreUnavailable and ScriptError."""

    def __init__(
        self,
        client: RedisClient,
        keys: Keys,
        store: SessionStore,
        listing: SessionListing,
        counts: SessionCounts,
        policies: Policies,
        secret: SharedSecret,
    ) -> None:
        self._client = client
        self._keys = keys
        self._store = store
        self._listing = listing
        self._counts = counts
        self._policies = policies
        self._secret = secret

    async def overview(self, limit: int) -> OverviewReport:
        counts, near_expiration = await self._counts.count_with_near_expiration()
        return OverviewReport(
            server=await self._server(),
            counts=counts.overall,
            near_expiration=near_expiration,
            oldest_expiry_ms=await self._counts.oldest_expiry_ms(counts),
            listing=await self.listing(SessionFilter(), limit),
            expiry_keys=self._keys.expiry(" "),
            now_ms=max(counts.at_ms.values()),
        )

    async def listing(self, session_filter: SessionFilter, limit: int) -> ListReport:
        """Read up to `limit` sessions, over several pages if needed."""
        page = await self._listing.page(session_filter, limit)
        sessions = page.sessions
        while page.next is not None and len(sessions) < limit:
            page = await self._listing.page(session_filter, limit - len(sessions), page.next)
            sessions = sessions + page.sessions
        agent_id = session_filter.agent_id
        policy = await self._policy(agent_id) if agent_id else None
        return ListReport(
            session_filter=session_filter,
            sessions=sessions,
            total=page.total,
            has_more=page.next is not None,
            policy=policy,
            owner_indexes=self._keys.owner_indexes(agent_id, session_filter.user_id),
            policy_key=self._keys.policy(agent_id) if agent_id and policy else None,
        )

    async def session(self, session_id: str) -> SessionReport:
        """Read a session. The store determines its state; its keys are read some milliseconds later."""
        if not is_issued_id(session_id):
            return SessionReport(session_id, self._log_hash(session_id), "unknown", _UNKNOWN, _NO_HASH, _NO_HASH, [], 0)
        outcome = await self._outcome(session_id)
        keys = self._keys.of(session_id)
        indexes = keys.expiry, keys.warning, keys.created
        commands: list[Command] = [
            ("HGETALL", keys.session),
            ("HGETALL", keys.tombstone),
            ("PTTL", keys.session),
            ("PTTL", keys.tombstone),
            *[("ZSCORE", index, session_id) for index in indexes],
            ("TIME",),
        ]
        replies = await query_readable(self._client, commands)
        session_fields, tombstone_fields, session_ttl_ms, tombstone_ttl_ms, *scores, time = replies
        session = StoredHash(keys.session, _decoded(session_fields or {}), session_ttl_ms)
        tombstone = StoredHash(keys.tombstone, _decoded(tombstone_fields or {}), tombstone_ttl_ms)
        state, detail = _state_of(outcome, tombstone)
        entries = [_entry(*args) for args in zip(("expiry", "warning", "created"), indexes, scores, strict=True)]
        owner_entries = await self._owner_entries(session_id, {**tombstone.fields, **session.fields})
        return SessionReport(
            session_id=session_id,
            log_hash=self._log_hash(session_id),
            state=state,
            detail=detail,
            session=session,
            tombstone=tombstone,
            entries=[*entries, *owner_entries],
            now_ms=ms_from_time_reply(time),
        )

    def _log_hash(self, session_id: str) -> str | None:
        return self._secret.hash_id(session_id) if self._secret.is_loaded else None

    async def _outcome(self, session_id: str) -> Outcome:
        try:
            session = await self._store.get(session_id)
        except UnreadableSession:
            return "unreadable"
        except (SessionExpired, SessionNotFound) as error:
            return error
        return session if is_readable(session) else "unreadable"

    async def _owner_entries(self, session_id: str, fields: Mapping[str, str]) -> list[IndexEntry]:
        user_id, agent_id = fields.get("userId"), fields.get("agentId")
        owner_indexes = self._keys.owner_indexes(agent_id, user_id)
        if not owner_indexes:
            return []
        names = [name for name, owner in (("user", user_id), ("agent", agent_id)) if owner is not None]
        scores = await self._client.query(*[("ZSCORE", owner_index, session_id) for owner_index in owner_indexes])
        return [_entry(*args) for args in zip(names, owner_indexes, scores, strict=True)]

    async def _policy(self, agent_id: str) -> Policy | None:
        try:
            return await self._policies.get(agent_id)
        except AgentPolicyNotFound:
            return None

    async def _server(self) -> str | None:
        names = {server_name(info) for info in (await server_infos(self._client, "server")).values()}
        return ", ".join(sorted(names)) or None


def _state_of(outcome: Outcome, tombstone: StoredHash) -> tuple[State, str]:
    match outcome:
        case "unreadable":
            return "unreadable", _UNREADABLE
        case Session():
            return "live", f"The session is active and expires in {format_duration(outcome.time_remaining_ms)}."
        case SessionExpired():
            return "expired", outcome.detail
        case _ if "revokedAt" in tombstone.fields:
            return "mark", _MARKER
        case _ if "expiresAt" in tombstone.fields:
            return "lost", _LOST
        case _:
            return "unknown", _UNKNOWN


def _entry(name: str, key: str, score: float | bytes | None) -> IndexEntry:
    return IndexEntry(name, key, None if score is None else int(float(score)))


def _decoded(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode(errors="replace"): value.decode(errors="replace") for name, value in fields.items()}
