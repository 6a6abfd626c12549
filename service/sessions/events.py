"""What happens to sessions, said once and told to the log and the metrics."""

import time
from collections.abc import Callable

from service.observability.audit import Actor, AuditLog
from service.observability.event_log import EventLog, WriteEvent
from service.observability.log import REQUEST_ID
from service.observability.metrics import END_REASONS, RENEWAL_TRIGGERS, Metrics
from service.settings.observability import LogLevel

_VERBS = {"put": "put", "deleted": "delete"}
_DOERS = {
    **dict.fromkeys(("inactivity", "max_duration", "unknown"), lambda: Actor("sweeper")),
    "lost": lambda: Actor("service"),
}
"""Of ends that nobody asked for."""


class SessionEvents:
    """Told of every turn in a session's life. Ids reach the log only as a keyed hash, metadata never."""

    def __init__(self, metrics: Metrics, log: EventLog, audit: AuditLog | None = None) -> None:
        self._metrics = metrics
        self._log = log
        self._audit = _leave_it if audit is None else audit.record
        self._created = log.bind("info", "session created")
        self._creation_repeated = log.bind("info", "session creation repeated")
        self._renewed_by_hand = log.bind("info", "session renewed", trigger="manual")
        self._renewed_by_activity = log.bind("debug", "session renewed", trigger="activity")
        self._changed = {what: log.bind("info", "session changed", what=what) for what in ("timeout", "metadata")}
        self._ended = {reason: log.bind(_level(reason), "session ended", reason=reason) for reason in END_REASONS}
        self._lost_met = log.bind("warning", "a session is gone before its end: evicted, lost or removed by hand")
        self._renewals = {trigger: metrics.renewed.labels(trigger) for trigger in RENEWAL_TRIGGERS}
        self.last_lost: float | None = None
        """When a lost session was last noticed, on the monotonic clock in seconds."""
        self.when_lost_is_met: Callable[[str], None] = _leave_it
        """Called with the id of each lost session that a request met, for someone to see to it afterwards."""
        self.when_left_behind: Callable[[str, str, str], None] = _leave_it
        """Likewise with the ids of each session that may still be listed, its agent and its user."""

    def created(self, session_id: str, agent_id: str, user_id: str) -> None:
        self._metrics.created.inc()
        self._write(self._created, session_id)
        self._audit("session.create", session=session_id, agent=agent_id, user=user_id)

    def creation_repeated(self, session_id: str) -> None:
        """It had been created before, and its client was told so."""
        self._write(self._creation_repeated, session_id)

    def renewed_by_hand(self, session_id: str) -> None:
        self._renewals["manual"].inc()
        self._write(self._renewed_by_hand, session_id)

    def renewed_by_activity(self, session_id: str) -> None:
        self._renewals["activity"].inc()
        self._write(self._renewed_by_activity, session_id)

    def changed(self, session_id: str, what: str) -> None:
        """`what` is `timeout` or `metadata`."""
        self._write(self._changed[what], session_id)

    def ended(self, session_id: str, reason: str, agent_id: str | None = None, user_id: str | None = None) -> None:
        """`reason`: inactivity, max_duration, deleted, revoked, evicted, lost, or unknown where its tombstone is gone.

        One that only a newer version beside this one knows counts as unknown too. The agent and the user are given
        where they are known.
        """
        reason = reason if reason in self._ended else "unknown"
        self._metrics.ended.labels(reason).inc()
        if reason == "lost":
            self.last_lost = time.monotonic()
        self._write(self._ended[reason], session_id)
        doer = _DOERS.get(reason)
        self._audit("session.end", session=session_id, agent=agent_id, user=user_id, reason=reason, actor=doer)

    def denied(self, limit: str) -> None:
        """A session was not created, for as many of its user, or of its agent, live as may; `limit` says which."""
        self._metrics.denied.labels(limit).inc()

    def lost_met(self, session_id: str) -> None:
        """A request asked for a session that is gone before its end: its hash was evicted, lost or removed by hand."""
        self._metrics.lost_met.inc()
        self.last_lost = time.monotonic()
        self._write(self._lost_met, session_id)
        self.when_lost_is_met(session_id)

    def left_behind(self, session_id: str, agent_id: str, user_id: str, why: str) -> None:
        """A session has ended, and it is not known whether its lookups list it still."""
        self._log.log(
            "info", "an ended session may stay in its lookups for now", **self._hashes(session=session_id), why=why
        )
        self.when_left_behind(session_id, agent_id, user_id)

    def all_lost(self) -> None:
        """The data is gone as a whole: the server came back without it, or someone flushed it."""
        self.last_lost = time.monotonic()
        self._log.log("warning", "the session store was emptied: every session it held is lost")

    def revoked(self, agent_id: str | None, user_id: str | None, number: int, *, more: bool) -> None:
        """A call ended so many sessions of an agent, of a user, or between the two; more may be left."""
        self._log.log(
            "info", "sessions revoked", **self._hashes(agent=agent_id, user=user_id), number=number, more=more
        )
        self._audit("sessions.revoke", agent=agent_id, user=user_id, number=number, more=more)

    def policy_changed(self, agent_id: str, how: str) -> None:
        """`how` is `put` or `deleted`."""
        self._log.log("info", "policy changed", **self._hashes(agent=agent_id), how=how)
        self._audit(f"policy.{_VERBS[how]}", agent=agent_id)

    def _hashes(self, **ids: str | None) -> dict[str, str]:
        return {name: self._log.secret.hash_id(given) for name, given in ids.items() if given is not None}

    def _write(self, write: WriteEvent, session_id: str) -> None:
        write(REQUEST_ID.get(None), session_id, None)


def _leave_it(*_: str, **__: object) -> None:
    """Nobody sees to it."""


def _level(reason: str) -> LogLevel:
    return "warning" if reason == "lost" else "info"
