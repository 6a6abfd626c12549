"""The checker finds what it is there for: a fault test is worth what it would notice."""

import time
from typing import Any

import pytest

from tests.faults.checker import Answer, Checker, Known

AN_HOUR = 3600


@pytest.fixture
def checker() -> Checker:
    return Checker()


@pytest.fixture
def known(checker: Checker) -> Known:
    """A session of which two renewals and one change of metadata were acknowledged, and a third renewal attempted."""
    known = Known("ab-1", "an agent", "a user", "a label", created=time.time() - AN_HOUR)
    known.renewals.attempted, known.steps.attempted = 3, 1
    known.renewals.see(2)
    known.steps.see(1)
    checker.sessions.append(known)
    return known


def answer(status: int, body: Any = None, verb: str = "read") -> Answer:
    return Answer(verb, status, body, time.time(), time.time())


def shown(known: Known, **changes: Any) -> Answer:
    body = {
        "sessionId": known.id,
        "agentId": known.agent_id,
        "userId": known.user_id,
        "renewalCount": 2,
        "metadata": {"label": known.label, "step": 1},
    }
    return answer(200, body | changes)


def deleted(known: Known) -> None:
    known.deletion_attempted, known.deleted = True, time.time()


@pytest.mark.parametrize("renewals", [2, 3], ids=["not happened", "happened"])
def test_a_change_without_an_answer_may_have_happened(checker: Checker, known: Known, renewals: int) -> None:
    assert checker.judge(known, known.now(), shown(known, renewalCount=renewals))
    assert checker.wrong == []


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
def test_what_was_neither_acknowledged_nor_attempted_is_wrong(
    checker: Checker, known: Known, changes: dict[str, Any]
) -> None:
    assert not checker.judge(known, known.now(), shown(known, **changes))
    assert len(checker.wrong) == 1


def test_what_was_seen_may_not_be_unseen(checker: Checker, known: Known) -> None:
    checker.judge(known, known.now(), shown(known, renewalCount=3))

    assert not checker.judge(known, known.now(), shown(known, renewalCount=2))


def test_only_what_was_acknowledged_counts_where_what_was_seen_need_not_stay(known: Known) -> None:
    checker = Checker(seen_stays=False)
    checker.judge(known, known.now(), shown(known, renewalCount=3))

    assert checker.judge(known, known.now(), shown(known, renewalCount=2))
    assert not checker.judge(known, known.now(), shown(known, renewalCount=1))


@pytest.mark.parametrize("status", [404, 410, 500, 400])
def test_a_live_session_may_not_be_said_to_be_anything_else(checker: Checker, known: Known, status: int) -> None:
    checker.judge(known, known.now(), answer(status, {}))

    assert len(checker.wrong) == 1


def test_a_deleted_session_may_not_be_shown(checker: Checker, known: Known) -> None:
    deleted(known)
    checker.judge(known, known.now(), answer(404, {}))
    checker.judge(known, known.now(), shown(known))

    assert len(checker.wrong) == 1


@pytest.mark.parametrize("status", [200, 404])
def test_a_deletion_without_an_answer_may_have_happened(checker: Checker, known: Known, status: int) -> None:
    known.deletion_attempted = True
    checker.judge(known, known.now(), shown(known)._replace(status=status))

    assert checker.wrong == []


@pytest.mark.parametrize(("ends_in", "right", "wrong"), [(AN_HOUR, 200, 410), (-AN_HOUR, 410, 200)])
def test_a_brief_session_is_gone_when_its_time_has_come(
    checker: Checker, known: Known, ends_in: int, right: int, wrong: int
) -> None:
    known.ends = time.time() + ends_in
    checker.judge(known, known.now(), shown(known)._replace(status=right))
    assert checker.wrong == []

    checker.judge(known, known.now(), shown(known)._replace(status=wrong))
    assert len(checker.wrong) == 1


def test_to_be_told_to_try_again_is_a_failure_and_not_wrong(checker: Checker, known: Known) -> None:
    checker.judge(known, known.now(), answer(503, {"code": "STORE_UNAVAILABLE"}))
    checker.judge(known, known.now(), answer(0))

    assert checker.wrong == []


def test_a_failure_in_other_words_is_wrong(checker: Checker, known: Known) -> None:
    checker.judge(known, known.now(), answer(503, {"code": "SESSION_NOT_FOUND"}))

    assert len(checker.wrong) == 1


def test_what_was_acknowledged_after_the_last_write_to_disk_may_be_lost(checker: Checker, known: Known) -> None:
    checker.doubt_since(known.created - 1)
    checker.judge(known, known.now(), shown(known, renewalCount=0, metadata={"label": "a label", "step": 0}))
    checker.judge(known, known.now(), answer(404, {}))

    assert checker.wrong == []


def test_what_was_acknowledged_before_it_may_not(checker: Checker, known: Known) -> None:
    checker.doubt_since(time.time())
    checker.judge(known, known.now(), shown(known, renewalCount=1))
    checker.judge(known, known.now(), answer(404, {}))

    assert len(checker.wrong) == 2
