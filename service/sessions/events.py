"""Report what happens to sessions to the log, the metrics and the audit."""

import time
from collections.abc import Callable

from service.end_reasons import END_REASONS
from service.observability.audit import Actor, AuditLog
from service.observability.event_log import EventLog, WriteEvent
from service.observability.log import REQUEST_ID
from service.observability.metrics import RENEWAL_TRIGGERS, Metrics
from service.settings.observability import LogLevel

_POLICY_ACTIONS = {"put": "policy.put", "deleted": "policy.delete"}
_ACTORS = {
    **dict.fromkeys(("inactivity", "max_duration", "unknown"), lambda: Actor("sweeper")),
    "lost": lambda: Actor("service"),
}
"""The actor of ends that no request caused, by reason."""


_MAX_UNREADABLE = 1000
"""How many unreadable records are remembered, so that each is logged once."""


class SessionEvents:
    """Has one method per event. The log contains ids only as keyed hashes, and never metadata."""

    def __init__(self, metrics: Metrics, log: EventLog, audit: AuditLog | None = None) -> None:
        self._metrics = metrics
        self._log = log
        self._audit = _ignore if audit is None else audit.record
        self._created = log.bind("info", "session created")
        self._creation_replayed = log.bind("info", "session creation replayed")
        self._renewed_manually = log.bind("info", "session renewed", trigger="manual")
        self._renewed_by_activity = log.bind("debug", "session renewed", trigger="activity")
        self._changed = {what: log.bind("info", "session changed", what=what) for what in ("timeout", "metadata")}
        self._message_cancelled = log.bind("info", "message cancelled")
        self._message_sent = {author: log.bind("info", "message sent", author=author) for author in ("user", "agent")}
        self._ended = {reason: log.bind(_level(reason), "session ended", reason=reason) for reason in END_REASONS}
        self._lost_session_requested = log.bind(
            "warning", "a requested session was lost before its expiry: evicted, lost by Redis or deleted by hand"
        )
        self._renewals = {trigger: metrics.renewed.labels(trigger) for trigger in RENEWAL_TRIGGERS}
        self._unreadable = set[str]()
        self.last_loss_at: float | None = None
        """When a lost session was last found, in seconds of the monotonic clock."""
        self.on_lost_session: Callable[[str], None] = _ignore
        """Called with the id of a lost session that a request named."""
        self.on_index_entry_left: Callable[[str, str, str], None] = _ignore
        """Called with the ids of an ended session, its agent and its user, if owner indexes may still contain it."""

    def created(self, session_id: str, agent_id: str, user_id: str) -> None:
        self._metrics.created.inc()
        self._write(self._created, session_id)
        self._audit("session.create", session=session_id, agent=agent_id, user=user_id)

    def creation_replayed(self, session_id: str) -> None:
        self._write(self._creation_replayed, session_id)

    def creation_denied(self, limit: str) -> None:
        """Report a creation beyond a cap. `limit` is `user` or `agent`."""
        self._metrics.denied.labels(limit).inc()

    def renewed_manually(self, session_id: str) -> None:
        self._renewals["manual"].inc()
        self._write(self._renewed_manually, session_id)

    def renewed_by_activity(self, session_id: str) -> None:
        self._renewals["activity"].inc()
        self._write(self._renewed_by_activity, session_id)

    def changed(self, session_id: str, what: str) -> None:
        """Report a change. `what` is `timeout` or `metadata`."""
        self._write(self._changed[what], session_id)

    def message_sent(self, session_id: str, *, is_agent: bool) -> None:
        """Report a message, without its content."""
        author = "agent" if is_agent else "user"
        self._write(self._message_sent[author], session_id)
        self._audit("message.send", session=session_id, author=author)

    def message_cancelled(self, session_id: str) -> None:
        """Report that a client cancelled the answer to a message."""
        self._write(self._message_cancelled, session_id)
        self._audit("message.cancel", session=session_id)

    def ended(self, session_id: str, reason: str, agent_id: str | None = None, user_id: str | None = None) -> None:
        """Report an end, with the agent and the user if they are known.

        `reason` is one of END_REASONS. A reason of a newer release counts as unknown, and so does a missing tombstone.
        """
        reason = reason if reason in self._ended else "unknown"
        self._metrics.ended.labels(reason).inc()
        if reason == "lost":
            self.last_loss_at = time.monotonic()
        self._write(self._ended[reason], session_id)
        actor = _ACTORS.get(reason)
        self._audit("session.end", session=session_id, agent=agent_id, user=user_id, reason=reason, actor=actor)

    def lost_session_requested(self, session_id: str) -> None:
        """Report a request for a session whose hash disappeared before its expiry."""
        self._metrics.lost_met.inc()
        self.last_loss_at = time.monotonic()
        self._write(self._lost_session_requested, session_id)
        self.on_lost_session(session_id)

    def index_entry_left(self, session_id: str, agent_id: str, user_id: str, cause: str) -> None:
        """Report an ended session that its owner indexes may still contain."""
        fields = self._hashes(session=session_id)
        self._log.log("info", "owner indexes may contain an ended session for now", **fields, cause=cause)
        self.on_index_entry_left(session_id, agent_id, user_id)

    def record_unreadable(self, name: str) -> None:
        """Report a record in Redis that is skipped, once for each id or key."""
        if name not in self._unreadable:
            if len(self._unreadable) >= _MAX_UNREADABLE:
                self._unreadable.clear()
            self._unreadable.add(name)
            self._log.log("error", "a record in Redis is unreadable and is skipped", **self._hashes(record=name))

    def store_emptied(self) -> None:
        """Report that Redis lost all data, by a restart without persistence or by FLUSHALL."""
        self.last_loss_at = time.monotonic()
        self._log.log("warning", "the session store was emptied: all of its sessions are lost")

    def revoked(self, agent_id: str | None, user_id: str | None, number: int, *, more: bool) -> None:
        """Report a call of a bulk revocation, and whether sessions are left for another call."""
        fields = self._hashes(agent=agent_id, user=user_id)
        self._log.log("info", "sessions revoked", **fields, number=number, more=more)
        self._audit("sessions.revoke", agent=agent_id, user=user_id, number=number, more=more)

    def policy_changed(self, agent_id: str, how: str) -> None:
        """Report a change of an agent's policy. `how` is `put` or `deleted`."""
        self._log.log("info", "policy changed", **self._hashes(agent=agent_id), how=how)
        self._audit(_POLICY_ACTIONS[how], agent=agent_id)

    def _hashes(self, **ids: str | None) -> dict[str, str]:
        return {name: self._log.secret.hash_id(value) for name, value in ids.items() if value is not None}

    def _write(self, write: WriteEvent, session_id: str) -> None:
        write(REQUEST_ID.get(None), session_id, None)


def _ignore(*_: str, **__: object) -> None: ...


def _level(reason: str) -> LogLevel:
    return "warning" if reason == "lost" else "info"
