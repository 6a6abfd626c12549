"""What happens to sessions, said once and told to the log and the metrics."""

import hashlib
import logging
import time

import structlog

from service.metrics import TRIGGERS, Metrics


class Lifecycle:
    """Told of every turn in a session's life. Ids reach the log only as a short hash, metadata never."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._renewals = {trigger: metrics.renewed.labels(trigger) for trigger in TRIGGERS}
        self._log = structlog.get_logger("service.lifecycle")
        self.last_lost: float | None = None
        """When a lost session was last noticed, on the monotonic clock in seconds."""

    def created(self, session_id: str) -> None:
        self._metrics.created.inc()
        self._log.info("session created", session=hashed(session_id))

    def renewed_by_hand(self, session_id: str) -> None:
        self._renewals["manual"].inc()
        self._log.info("session renewed", session=hashed(session_id), trigger="manual")

    def renewed_by_activity(self, session_id: str) -> None:
        self._renewals["activity"].inc()
        if self._log.is_enabled_for(logging.DEBUG):  # thousands a second
            self._log.debug("session renewed", session=hashed(session_id), trigger="activity")

    def changed(self, session_id: str, what: str) -> None:
        """`what` is `timeout` or `metadata`."""
        self._log.info("session changed", session=hashed(session_id), what=what)

    def ended(self, session_id: str, reason: str) -> None:
        """`reason`: inactivity, max_duration, deleted, revoked, lost, or unknown where its tombstone is gone."""
        self._metrics.ended.labels(reason).inc()
        if reason == "lost":
            self.last_lost = time.monotonic()
        self._log.info("session ended", session=hashed(session_id), reason=reason)

    def lost_met(self, session_id: str) -> None:
        """A request asked for a session that is gone before its end: its hash was evicted, lost or removed by hand."""
        self._metrics.lost_met.inc()
        self.last_lost = time.monotonic()
        self._log.warning(
            "a session is gone before its end: evicted, lost or removed by hand", session=hashed(session_id)
        )


def hashed(session_id: str) -> str:
    """Twelve hex digits that stand for an id in logs and traces: their readers must not be able to use it."""
    return hashlib.blake2b(session_id.encode(), digest_size=6).hexdigest()
