"""Trouble with the store: told once an episode, over every way to it, and remembered."""

import logging

import pytest

from service.lanes.lane import StoreRefused
from service.lanes.store_watch import StoreWatch, Trouble
from service.telemetry.metrics import Metrics

OUT_OF_MEMORY = StoreRefused("OOM command not allowed")


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def test_an_episode_is_told_once_and_so_is_its_end(told: pytest.LogCaptureFixture) -> None:
    outage = Trouble("it does not answer", "it answers again")

    for _ in range(3):
        outage.begins(TimeoutError("for 2 s"))
    for _ in range(3):
        outage.is_over()

    assert [record.getMessage() for record in told.records] == [
        "it does not answer: TimeoutError: for 2 s",
        "it answers again",
    ]


def test_what_is_done_among_refusals_ends_no_episode(told: pytest.LogCaptureFixture) -> None:
    refusals = Trouble("it refuses", "it does what it is asked", quiet_seconds=60)

    for _ in range(3):
        refusals.begins(OUT_OF_MEMORY)
        refusals.is_over()

    assert [record.getMessage() for record in told.records] == ["it refuses: OOM command not allowed"]


def test_what_was_seen_is_remembered_for_a_while() -> None:
    refusals = StoreWatch(Metrics()).refusals
    at_first = refusals.was_seen_within(60)

    refusals.begins(OUT_OF_MEMORY)

    assert (at_first, refusals.was_seen_within(60), refusals.was_seen_within(0)) == (False, True, False)
    assert refusals.why == "OOM command not allowed"
