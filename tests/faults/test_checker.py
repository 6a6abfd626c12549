"""The checker of the fault tests finds violations, and accepts what an outage may cause."""

import time
from typing import Any

import pytest

from tests.faults.checker import Checker, ExpectedSession, Response

HOUR_SECONDS = 3600


@pytest.fixture
def checker() -> Checker:
    return Checker()


@pytest.fixture
def session(checker: Checker) -> ExpectedSession:
    """A session with two acknowledged renewals, one attempted renewal and one acknowledged metadata patch."""
    session = ExpectedSession("ab-1", "an agent", "a user", "a label", created_at=time.time() - HOUR_SECONDS)
    session.renewals.upper_bound, session.steps.upper_bound = 3, 1
    session.renewals.observe(2)
    session.steps.observe(1)
    checker.sessions.append(session)
    return session


def response(status: int, body: Any = None) -> Response:
    return Response("read", status, body, time.time(), time.time())


def response_with(session: ExpectedSession, **changes: Any) -> Response:
    body = {
        "sessionId": session.id,
        "agentId": session.agent_id,
        "userId": session.user_id,
        "renewalCount": 2,
        "metadata": {"label": session.label, "step": 1},
    }
    return response(200, body | changes)


@pytest.mark.parametrize("renewals", [2, 3], ids=["not applied", "applied"])
def test_a_change_without_a_response_may_be_applied(checker: Checker, session: ExpectedSession, renewals: int) -> None:
    assert checker.check(session, session.snapshot(), response_with(session, renewalCount=renewals))
    assert checker.violations == []


@pytest.mark.parametrize(
    "changes",
    [
        {"sessionId": "ab-2"},
        {"userId": "another"},
        {"agentId": "another"},
        {"metadata": {"label": "another", "step": 1}},
        {"metadata": {"label": "a label", "step": 0}},
        {"metadata": {"label": "a label", "step": 2}},
        {"renewalCount": 1},
        {"renewalCount": 4},
    ],
    ids=str,
)
def test_a_lost_or_invented_change_is_a_violation(
    checker: Checker, session: ExpectedSession, changes: dict[str, Any]
) -> None:
    assert not checker.check(session, session.snapshot(), response_with(session, **changes))
    assert len(checker.violations) == 1


def test_a_change_that_was_read_must_not_disappear(checker: Checker, session: ExpectedSession) -> None:
    checker.check(session, session.snapshot(), response_with(session, renewalCount=3))

    assert not checker.check(session, session.snapshot(), response_with(session, renewalCount=2))


def test_a_change_that_was_read_may_disappear_if_reads_are_not_durable(session: ExpectedSession) -> None:
    checker = Checker(reads_are_durable=False)
    checker.check(session, session.snapshot(), response_with(session, renewalCount=3))

    assert checker.check(session, session.snapshot(), response_with(session, renewalCount=2))
    assert not checker.check(session, session.snapshot(), response_with(session, renewalCount=1))


@pytest.mark.parametrize("status", [404, 410, 500, 400])
def test_any_other_status_of_a_live_session_is_a_violation(
    checker: Checker, session: ExpectedSession, status: int
) -> None:
    checker.check(session, session.snapshot(), response(status, {}))

    assert len(checker.violations) == 1


def test_a_deleted_session_must_not_be_returned(checker: Checker, session: ExpectedSession) -> None:
    session.is_deletion_attempted, session.deleted_at = True, time.time()
    checker.check(session, session.snapshot(), response(404, {}))
    checker.check(session, session.snapshot(), response_with(session))

    assert len(checker.violations) == 1


@pytest.mark.parametrize("status", [200, 404])
def test_a_deletion_without_a_response_may_be_applied(checker: Checker, session: ExpectedSession, status: int) -> None:
    session.is_deletion_attempted = True
    checker.check(session, session.snapshot(), response_with(session)._replace(status=status))

    assert checker.violations == []


@pytest.mark.parametrize(("expires_in", "right", "wrong"), [(HOUR_SECONDS, 200, 410), (-HOUR_SECONDS, 410, 200)])
def test_a_session_must_expire_on_time(
    checker: Checker, session: ExpectedSession, expires_in: int, right: int, wrong: int
) -> None:
    session.expires_at = time.time() + expires_in
    checker.check(session, session.snapshot(), response_with(session)._replace(status=right))
    assert checker.violations == []

    checker.check(session, session.snapshot(), response_with(session)._replace(status=wrong))
    assert len(checker.violations) == 1


def test_a_failure_is_not_a_violation(checker: Checker, session: ExpectedSession) -> None:
    checker.check(session, session.snapshot(), response(503, {"code": "STORE_UNAVAILABLE"}))
    checker.check(session, session.snapshot(), response(0))

    assert checker.violations == []


def test_a_failure_with_another_code_is_a_violation(checker: Checker, session: ExpectedSession) -> None:
    checker.check(session, session.snapshot(), response(503, {"code": "SESSION_NOT_FOUND"}))

    assert len(checker.violations) == 1


def test_changes_after_the_allowed_time_may_be_lost(checker: Checker, session: ExpectedSession) -> None:
    checker.allow_loss_after(session.created_at - 1)
    lost = response_with(session, renewalCount=0, metadata={"label": "a label", "step": 0})
    checker.check(session, session.snapshot(), lost)
    checker.check(session, session.snapshot(), response(404, {}))

    assert checker.violations == []


def test_changes_before_the_allowed_time_must_not_be_lost(checker: Checker, session: ExpectedSession) -> None:
    checker.allow_loss_after(time.time())
    checker.check(session, session.snapshot(), response_with(session, renewalCount=1))
    checker.check(session, session.snapshot(), response(404, {}))

    assert len(checker.violations) == 2
