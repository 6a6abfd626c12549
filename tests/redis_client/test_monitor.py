"""Trouble with the store: told once an episode, over every way to it, and remembered."""

import logging

import pytest

from service.observability.metrics import Metrics
from service.redis_client.errors import CommandRejected
from service.redis_client.monitor import Incident, StoreMonitor

OUT_OF_MEMORY = CommandRejected("OOM command not allowed")


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def test_an_episode_is_told_once_and_so_is_its_end(told: pytest.LogCaptureFixture) -> None:
    outage = Incident("it does not answer", "it answers again")

    for _ in range(3):
        outage.record_failure(TimeoutError("for 2 s"))
    for _ in range(3):
        outage.record_success()

    assert [record.getMessage() for record in told.records] == [
        "it does not answer: TimeoutError: for 2 s",
        "it answers again",
    ]


def test_what_is_done_among_refusals_ends_no_episode(told: pytest.LogCaptureFixture) -> None:
    rejections = Incident("it refuses", "it does what it is asked", quiet_seconds=60)

    for _ in range(3):
        rejections.record_failure(OUT_OF_MEMORY)
        rejections.record_success()

    assert [record.getMessage() for record in told.records] == ["it refuses: OOM command not allowed"]


def test_what_was_seen_is_remembered_for_a_while() -> None:
    rejections = StoreMonitor(Metrics()).rejections
    at_first = rejections.occurred_within(60)

    rejections.record_failure(OUT_OF_MEMORY)

    assert (at_first, rejections.occurred_within(60), rejections.occurred_within(0)) == (
        False,
        True,
        False,
    )
    assert rejections.cause == "OOM command not allowed"
