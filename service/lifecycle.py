"""What happens to sessions, said once and told to the log and the metrics."""

import hashlib
import logging
import time

import structlog

from service.instants import iso
from service.later import Later
from service.log import REQUEST_ID
from service.metrics import TRIGGERS, Metrics


class Lifecycle:
    """Told of every turn in a session's life. Ids reach the log only as a short hash, metadata never."""

    def __init__(self, metrics: Metrics, later: Later) -> None:
        self._metrics = metrics
        self._later = later
        self._log = structlog.get_logger("service.lifecycle").bind()
        self._renewals = {trigger: metrics.renewed.labels(trigger) for trigger in TRIGGERS}
        self.last_lost: float | None = None
        """When a lost session was last noticed, on the monotonic clock in seconds."""

    def created(self, session_id: str) -> None:
        self._metrics.created.inc()
        self._say(logging.INFO, "session created", session_id)

    def renewed_by_hand(self, session_id: str) -> None:
        self._renewals["manual"].inc()
        self._say(logging.INFO, "session renewed", session_id, trigger="manual")

    def renewed_by_activity(self, session_id: str) -> None:
        self._renewals["activity"].inc()
        self._say(logging.DEBUG, "session renewed", session_id, trigger="activity")

    def changed(self, session_id: str, what: str) -> None:
        """`what` is `timeout` or `metadata`."""
        self._say(logging.INFO, "session changed", session_id, what=what)

    def ended(self, session_id: str, reason: str) -> None:
        """`reason`: inactivity, max_duration, deleted, revoked, lost, or unknown where its tombstone is gone."""
        self._metrics.ended.labels(reason).inc()
        if reason == "lost":
            self.last_lost = time.monotonic()
        self._say(logging.INFO, "session ended", session_id, reason=reason)

    def lost_met(self, session_id: str) -> None:
        """A request asked for a session that is gone before its end: its hash was evicted, lost or removed by hand."""
        self._metrics.lost_met.inc()
        self.last_lost = time.monotonic()
        self._say(logging.WARNING, "a session is gone before its end: evicted, lost or removed", session_id)

    def _say(self, level: int, event: str, session_id: str, **facts: str) -> None:
        if self._log.is_enabled_for(level):
            self._later.do(self._write, level, event, session_id, facts, REQUEST_ID.get(None), time.time())

    def _write(
        self, level: int, event: str, session_id: str, facts: dict[str, str], request_id: str | None, at: float
    ) -> None:
        if request_id is not None:
            facts["request_id"] = request_id
        self._log.log(level, event, session=hashed(session_id), **facts, timestamp=iso(int(at * 1000)))


def hashed(session_id: str) -> str:
    """Twelve hex digits that stand for an id in logs and traces: their readers must not be able to use it."""
    return hashlib.blake2b(session_id.encode(), digest_size=6).hexdigest()
