"""What an operator looks at: one session with every trace of it in Redis, those of a user or an agent, or all."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from service.cli.durations import human
from service.errors import AgentPolicyNotFound, SessionExpired, SessionNotFound
from service.maintenance.server_checks import infos, name_of
from service.redis_client.client import RedisClient
from service.sessions.counts import SessionCounts, ShardCount
from service.sessions.keys import Keys
from service.sessions.listing import SessionFilter, SessionListing
from service.sessions.policies import Policies, Policy
from service.sessions.session import Session, is_issued_id
from service.sessions.store import SessionStore
from service.settings.redis_url import redis_cli, summed_over_shards
from service.shared_secret import SharedSecret
from service.timestamps import ms_from_time_reply

INSTANTS = frozenset(("createdAt", "lastActivity", "renewedAt", "expiresAt", "revokedAt", "lostAt"))
"""Fields of a session's hashes that hold one."""

State = Literal["live", "expired", "lost", "mark", "unknown"]

_LOST = "It is lost: its hash is gone before its end, evicted, lost with its server or removed by hand."
_MARK = "It is a mark: a bulk revocation met the id before its session was there, and refuses the creation."
_UNKNOWN = "It is unknown: it never was, was deleted or revoked, or ended longer ago than tombstones are kept."


class Hash(NamedTuple):
    """A hash of a session's as it lies in Redis. `ttl_ms` is as PTTL says: -1 without an end, -2 without a key."""

    key: str
    fields: Mapping[str, str]
    ttl_ms: int


class Place(NamedTuple):
    """An index or a lookup, and the instant under which it lists the session; None where it does not."""

    name: str
    key: str
    listed_at_ms: int | None


class Found(NamedTuple):
    """All that Redis holds under one session's id. `sentence` says for a person what `state` it is in.

    `log_hash` is what stands for the id in logs; None where no replica has made the secret for that yet.
    """

    session_id: str
    log_hash: str | None
    state: State
    detail: str
    session: Hash
    tombstone: Hash
    places: Sequence[Place]
    at_ms: int

    def redis_cli_lines(self, url: str) -> list[str]:
        hashes = [hash_ for hash_ in (self.session, self.tombstone) if hash_.key]
        return [redis_cli(url, command, hash_.key) for hash_ in hashes for command in ("HGETALL", "PTTL")]


class SessionTable(NamedTuple):
    """The first of the sessions that are wanted; `total` is how many there are at most, `policy` their agent's."""

    wanted: SessionFilter
    sessions: Sequence[Session]
    total: int
    more: bool
    policy: Policy | None
    owner_indexes: Sequence[str]
    policy_key: str | None

    def redis_cli_lines(self, url: str) -> list[str]:
        policies = [redis_cli(url, "HGETALL", self.policy_key)] if self.policy_key else []
        return [redis_cli(url, "ZRANGE", owner_index, "0", "-1") for owner_index in self.owner_indexes] + policies


class Overview(NamedTuple):
    """All sessions in numbers, and the first of them. `server` is None where the account may not ask for it."""

    server: str | None
    tally: ShardCount
    near: int
    oldest_end_ms: int | None
    listing: SessionTable
    expiry_keys: str
    at_ms: int

    def redis_cli_lines(self, url: str) -> list[str]:
        return [redis_cli(url), summed_over_shards(url, "ZCOUNT", self.expiry_keys, f"({self.at_ms}", "+inf")]


Looked = Found | SessionTable | Overview

_NOTHING = Hash("", {}, -2)


class Inspection:
    """Looks, and changes nothing. Raises StoreUnavailable and ScriptFault."""

    def __init__(
        self,
        redis: RedisClient,
        keys: Keys,
        store: SessionStore,
        directory: SessionListing,
        session_counts: SessionCounts,
        policies: Policies,
        secret: SharedSecret,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._store = store
        self._directory = directory
        self._session_counts = session_counts
        self._policies = policies
        self._secret = secret

    async def overview(self, limit: int) -> Overview:
        counted, near = await self._session_counts.take_with_near()
        oldest_end_ms = await self._session_counts.oldest_end_ms(counted)
        listing = await self.listing(SessionFilter(), limit)
        expiry_keys = self._keys.expiry(" ")
        at_ms = max(counted.at_ms.values())
        return Overview(await self._server(), counted.total, near, oldest_end_ms, listing, expiry_keys, at_ms)

    async def listing(self, wanted: SessionFilter, limit: int) -> SessionTable:
        """Up to `limit` sessions; a page may be short, so there may be several."""
        page = await self._directory.page(wanted, limit)
        sessions = page.sessions
        while page.next is not None and len(sessions) < limit:
            page = await self._directory.page(wanted, limit - len(sessions), page.next)
            sessions = sessions + page.sessions
        owner_indexes = self._keys.owner_indexes(wanted.agent_id, wanted.user_id)
        policy = await self._policy(wanted.agent_id) if wanted.agent_id else None
        policy_key = self._keys.policy(wanted.agent_id) if wanted.agent_id and policy else None
        return SessionTable(wanted, sessions, page.total, page.next is not None, policy, owner_indexes, policy_key)

    async def session(self, session_id: str) -> Found:
        """Judged by the store; the traces are read after that, and may be some milliseconds younger."""
        if not is_issued_id(session_id):
            return Found(session_id, self._log_hash(session_id), "unknown", _UNKNOWN, _NOTHING, _NOTHING, [], 0)
        ending = await self._ending(session_id)
        keys = self._keys.of(session_id)
        fields, fields_left, ttl_ms, ttl_left_ms, *scores, time = await self._redis.query(
            ("HGETALL", keys.session),
            ("HGETALL", keys.tombstone),
            ("PTTL", keys.session),
            ("PTTL", keys.tombstone),
            *[("ZSCORE", index, session_id) for index in keys[2:]],
            ("TIME",),
        )
        session = Hash(keys.session, _texts(fields), ttl_ms)
        tombstone = Hash(keys.tombstone, _texts(fields_left), ttl_left_ms)
        indexes = [_place(*found) for found in zip(("expiry", "warning", "created"), keys[2:], scores, strict=True)]
        owner_indexes = await self._owner_index(session_id, {**tombstone.fields, **session.fields})
        state, detail = _judged(ending, tombstone)
        places = [*indexes, *owner_indexes]
        log_hash = self._log_hash(session_id)
        return Found(session_id, log_hash, state, detail, session, tombstone, places, ms_from_time_reply(time))

    def _log_hash(self, session_id: str) -> str | None:
        return self._secret.hashed(session_id) if self._secret.is_known else None

    async def _ending(self, session_id: str) -> Session | SessionExpired | SessionNotFound:
        try:
            return await self._store.get(session_id)
        except (SessionExpired, SessionNotFound) as refusal:
            return refusal

    async def _owner_index(self, session_id: str, fields: Mapping[str, str]) -> list[Place]:
        """Its user's and its agent's, as far as it is still known whose it is."""
        user_id, agent_id = fields.get("userId"), fields.get("agentId")
        owner_indexes = self._keys.owner_indexes(agent_id, user_id)
        names = [name for name, owner in (("user", user_id), ("agent", agent_id)) if owner is not None]
        scores = (
            await self._redis.query(*[("ZSCORE", owner_index, session_id) for owner_index in owner_indexes])
            if owner_indexes
            else []
        )
        return [_place(*found) for found in zip(names, owner_indexes, scores, strict=True)]

    async def _policy(self, agent_id: str) -> Policy | None:
        try:
            return await self._policies.get(agent_id)
        except AgentPolicyNotFound:
            return None

    async def _server(self) -> str | None:
        names = {name_of(info) for info in (await infos(self._redis, "server")).values()}
        return ", ".join(sorted(names)) or None


def _judged(ending: Session | SessionExpired | SessionNotFound, tombstone: Hash) -> tuple[State, str]:
    match ending:
        case Session():
            return "live", f"It lives and ends in {human(ending.time_remaining_ms)}."
        case SessionExpired():
            return "expired", ending.detail
        case _ if "revokedAt" in tombstone.fields:
            return "mark", _MARK
        case _ if "expiresAt" in tombstone.fields:
            return "lost", _LOST
        case _:
            return "unknown", _UNKNOWN


def _place(name: str, key: str, score: float | bytes | None) -> Place:
    return Place(name, key, None if score is None else int(float(score)))


def _texts(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode(errors="replace"): value.decode(errors="replace") for name, value in fields.items()}
