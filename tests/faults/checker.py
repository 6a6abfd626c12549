"""Knows what each session must be, from what was acknowledged and what was only attempted, and judges every answer.

A change that was answered has happened, one that was not may have happened, and what a reader has seen stays seen. An
answer is judged by what was known when it was asked for and what was attempted by the time when it came. Instants are
seconds of this machine's clock, which is that of the Redis under test too.
"""

import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

MARGIN_SECONDS = 0.1
"""About the end of a session: its instant was rounded, and Redis does not look at its clock all the time."""

REFUSALS = {502: {"REPLICA_FAILED"}, 503: {"STORE_UNAVAILABLE", "NO_REPLICA_READY"}, 504: {"REPLICA_TIMED_OUT"}}
"""What may be answered while something has failed, beside no answer at all."""


class Number:
    """One that only grows: how far it has come for certain, and how far it may have come."""

    def __init__(self) -> None:
        self.attempted = 0
        self._known = [(0.0, 0)]

    @property
    def least(self) -> int:
        return self._known[-1][1]

    def attempt(self) -> None:
        self.attempted += 1

    def see(self, value: int) -> None:
        if value > self.least:
            self._known.append((time.time(), value))

    def doubt_since(self, instant: float) -> None:
        """What was known of it before this is all that is certain."""
        self._known = [(at, value) for at, value in self._known if at <= instant] or [(0.0, 0)]


@dataclass
class Known:
    """What is known of a session since its creation was acknowledged."""

    id: str
    agent_id: str
    user_id: str
    label: str
    created: float
    ends: float | None = None
    """When it ends, if that is meant to be seen."""
    renewals: Number = field(default_factory=Number)
    steps: Number = field(default_factory=Number)
    """The number that its metadata holds."""
    deletion_attempted: bool = False
    deleted: float | None = None
    """When its deletion was acknowledged."""
    may_be_lost: bool = False

    def metadata(self, step: int) -> dict[str, object]:
        return {"label": self.label, "step": step}

    def doubt_since(self, instant: float) -> None:
        self.may_be_lost = self.may_be_lost or self.created > instant
        self.deleted = None if self.deleted is not None and self.deleted > instant else self.deleted
        self.renewals.doubt_since(instant)
        self.steps.doubt_since(instant)

    def now(self) -> "Before":
        return Before(time.time(), self.renewals.least, self.steps.least, self.deleted is not None)


class Before(NamedTuple):
    """What was known of a session when something was asked about it."""

    instant: float
    renewals: int
    step: int
    deleted: bool


class Answer(NamedTuple):
    """What a client was told; a status of 0 is no answer."""

    verb: str
    status: int
    body: Any
    asked: float
    came: float
    session_id: str = ""
    """None where a session was to be created."""

    @property
    def failed(self) -> bool:
        return self.status == 0 or self.status in REFUSALS


class Checker:
    """Collects the answers, and what was wrong with them.

    Where `seen_stays` is not so, a reader may have seen what was refused to whoever asked for it, and is lost.
    """

    def __init__(self, *, seen_stays: bool = True) -> None:
        self._seen_stays = seen_stays
        self.answers: list[Answer] = []
        self.wrong: list[str] = []
        self.sessions: list[Known] = []

    def doubt_since(self, instant: float) -> None:
        """What was acknowledged after this may have been lost: an outage lost Redis's memory, but not its disk."""
        for known in self.sessions:
            known.doubt_since(instant)

    def judge(self, known: Known, before: Before, answer: Answer) -> bool:
        """Whether it is the acknowledgement that was asked for; what it shows is known from now on."""
        if answer.failed:
            self._judge_refusal(answer)
        elif answer.status not in self._statuses(known, before, answer):
            self._complain(known, answer, "its status")
        elif answer.status == 200 and answer.verb != "delete":
            return self._judge_session(known, before, answer)
        return answer.status == 200

    def expect_refused(self, answer: Answer) -> None:
        """Of a creation that was not acknowledged."""
        if answer.failed:
            self._judge_refusal(answer)
        else:
            self.wrong.append(f"{answer}: a creation refused")

    def _judge_refusal(self, answer: Answer) -> None:
        if answer.status and answer.body.get("code") not in REFUSALS[answer.status]:
            self.wrong.append(f"{answer}: its code")

    def _statuses(self, known: Known, before: Before, answer: Answer) -> set[int]:
        """Those that may be answered; a session that is meant to end tells by the clock which of two it is."""
        if known.deleted is not None and before.deleted:
            return {404}
        unknown = {404} if known.deletion_attempted or known.may_be_lost else set()
        if known.ends is None:
            return {200} | unknown
        living = {200} if before.instant <= known.ends + MARGIN_SECONDS else set()
        ended = {410} if answer.came >= known.ends - MARGIN_SECONDS else set()
        return living | ended | unknown

    def _judge_session(self, known: Known, before: Before, answer: Answer) -> bool:
        body = answer.body
        renewals, step = body["renewalCount"], body["metadata"].get("step")
        faults = [
            what
            for what, is_right in {
                "another session": body["sessionId"] == known.id,
                "other people": (body["agentId"], body["userId"]) == (known.agent_id, known.user_id),
                "another's metadata": body["metadata"] == known.metadata(step),
                "its step": before.step <= step <= known.steps.attempted,
                "its renewals": before.renewals <= renewals <= known.renewals.attempted,
            }.items()
            if not is_right
        ]
        for what in faults:
            self._complain(known, answer, what)
        if not faults and (self._seen_stays or not answer.verb.startswith("read")):
            known.renewals.see(renewals)
            known.steps.see(step)
        return not faults

    def _complain(self, known: Known, answer: Answer, what: str) -> None:
        self.wrong.append(f"{what} in {answer} about {known}")


def end_of(body: Any) -> float:
    return datetime.fromisoformat(body["expiresAt"]).timestamp()
