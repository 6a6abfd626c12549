"""Check responses against a model of each session, from acknowledged and attempted changes.

- An acknowledged change is durable. A change without an acknowledgement may or may not have been applied.
- A change that one response shows is part of all later responses.

All times are seconds of this machine's clock, which is Redis's clock too.
"""

import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

CLOCK_MARGIN_SECONDS = 0.1
"""Around the expiry of a session: it is rounded, and Redis caches the time."""

FAILURE_CODES = {502: {"REPLICA_FAILED"}, 503: {"STORE_UNAVAILABLE", "NO_REPLICA_READY"}, 504: {"REPLICA_TIMED_OUT"}}
"""The statuses and codes of an outage."""


class MonotonicValue:
    """A number that only grows. Its actual value is from `lower_bound` to `upper_bound`."""

    def __init__(self) -> None:
        self.upper_bound = 0
        self._observed = [(0.0, 0)]

    @property
    def lower_bound(self) -> int:
        return self._observed[-1][1]

    def attempt_increment(self) -> None:
        self.upper_bound += 1

    def observe(self, value: int) -> None:
        if value > self.lower_bound:
            self._observed.append((time.time(), value))

    def allow_loss_after(self, instant: float) -> None:
        self._observed = [(at, value) for at, value in self._observed if at <= instant] or [(0.0, 0)]


@dataclass
class ExpectedSession:
    """The model of a session whose creation was acknowledged."""

    id: str
    agent_id: str
    user_id: str
    label: str
    created_at: float
    expires_at: float | None = None
    """Set only for sessions that expire during the test."""
    renewals: MonotonicValue = field(default_factory=MonotonicValue)
    steps: MonotonicValue = field(default_factory=MonotonicValue)
    """The member `step` of the metadata."""
    is_deletion_attempted: bool = False
    deleted_at: float | None = None
    """When the deletion was acknowledged."""
    may_be_lost: bool = False

    def metadata(self, step: int) -> dict[str, object]:
        return {"label": self.label, "step": step}

    def allow_loss_after(self, instant: float) -> None:
        self.may_be_lost = self.may_be_lost or self.created_at > instant
        self.deleted_at = None if self.deleted_at is not None and self.deleted_at > instant else self.deleted_at
        self.renewals.allow_loss_after(instant)
        self.steps.allow_loss_after(instant)

    def snapshot(self) -> "Snapshot":
        return Snapshot(time.time(), self.renewals.lower_bound, self.steps.lower_bound, self.deleted_at is not None)


class Snapshot(NamedTuple):
    """The lower bounds of a session when a request was sent."""

    sent_at: float
    renewals: int
    step: int
    is_deleted: bool


class Response(NamedTuple):
    """A response to an operation. The status is 0 if there was none."""

    operation: str
    status: int
    body: Any
    sent_at: float
    received_at: float
    session_id: str = ""
    """Empty for a creation."""

    @property
    def is_failure(self) -> bool:
        return self.status == 0 or self.status in FAILURE_CODES

    @property
    def seconds(self) -> float:
        return self.received_at - self.sent_at


class Checker:
    """Collects responses, and violations of the model in them.

    With `reads_are_durable=False`, a read may show a change that failed, and that is lost later.
    """

    def __init__(self, *, reads_are_durable: bool = True) -> None:
        self._reads_are_durable = reads_are_durable
        self.responses: list[Response] = []
        self.violations: list[str] = []
        self.sessions: list[ExpectedSession] = []

    def allow_loss_after(self, instant: float) -> None:
        """Allow that changes acknowledged after `instant` are lost."""
        for session in self.sessions:
            session.allow_loss_after(instant)

    def check(self, session: ExpectedSession, before: Snapshot, response: Response) -> bool:
        """Return whether the response acknowledges the request. Raises the lower bounds to the values it shows."""
        if response.is_failure:
            self._check_failure(response)
        elif response.status not in self._allowed_statuses(session, before, response):
            self._add_violation(session, response, "the status")
        elif response.status == 200 and response.operation != "delete":
            return self._check_session(session, before, response)
        return response.status == 200

    def check_failed_creation(self, response: Response) -> None:
        if response.is_failure:
            self._check_failure(response)
        else:
            self.violations.append(f"creation rejected: {response}")

    def _check_failure(self, response: Response) -> None:
        if response.status and response.body.get("code") not in FAILURE_CODES[response.status]:
            self.violations.append(f"the code of {response}")

    def _allowed_statuses(self, session: ExpectedSession, before: Snapshot, response: Response) -> set[int]:
        if session.deleted_at is not None and before.is_deleted:
            return {404}
        missing = {404} if session.is_deletion_attempted or session.may_be_lost else set()
        if session.expires_at is None:
            return {200} | missing
        live = {200} if before.sent_at <= session.expires_at + CLOCK_MARGIN_SECONDS else set()
        expired = {410} if response.received_at >= session.expires_at - CLOCK_MARGIN_SECONDS else set()
        return live | expired | missing

    def _check_session(self, session: ExpectedSession, before: Snapshot, response: Response) -> bool:
        body = response.body
        renewals, step = body["renewalCount"], body["metadata"].get("step")
        is_correct = {
            "the session id": body["sessionId"] == session.id,
            "agent and user": (body["agentId"], body["userId"]) == (session.agent_id, session.user_id),
            "the metadata": body["metadata"] == session.metadata(step),
            "the step": before.step <= step <= session.steps.upper_bound,
            "the renewals": before.renewals <= renewals <= session.renewals.upper_bound,
        }
        violations = [subject for subject, correct in is_correct.items() if not correct]
        for subject in violations:
            self._add_violation(session, response, subject)
        if not violations and (self._reads_are_durable or not response.operation.startswith("read")):
            session.renewals.observe(renewals)
            session.steps.observe(step)
        return not violations

    def _add_violation(self, session: ExpectedSession, response: Response, subject: str) -> None:
        self.violations.append(f"{subject} in {response} of {session}")


def expiry_of(body: Any) -> float:
    return datetime.fromisoformat(body["expiresAt"]).timestamp()
