"""Outages are logged when they begin and end, and each failure is counted by its kind."""

import logging

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.observability.metrics import Metrics
from service.redis_client.errors import CommandRejected, ServerDemoted, UnderReplicated
from service.redis_client.monitor import Incident, StoreMonitor
from tests.counted import counted

OUT_OF_MEMORY = CommandRejected("OOM command not allowed")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def test_an_incident_is_logged_once_when_it_begins_and_once_when_it_ends(log: pytest.LogCaptureFixture) -> None:
    outage = Incident("Redis does not respond", "Redis responds again")

    for _ in range(3):
        outage.record_failure(TimeoutError("after 2 s"))
    for _ in range(3):
        outage.record_success()

    assert [record.getMessage() for record in log.records] == [
        "Redis does not respond: TimeoutError: after 2 s",
        "Redis responds again",
    ]


def test_successes_between_failures_do_not_end_an_incident_with_a_quiet_period(log: pytest.LogCaptureFixture) -> None:
    rejections = Incident("Redis rejects commands", "Redis accepts commands again", quiet_seconds=60)

    for _ in range(3):
        rejections.record_failure(OUT_OF_MEMORY)
        rejections.record_success()

    assert [record.getMessage() for record in log.records] == ["Redis rejects commands: OOM command not allowed"]


def test_an_incident_keeps_the_cause_and_the_time_of_its_last_failure() -> None:
    rejections = StoreMonitor(Metrics()).rejections
    occurred_before = rejections.occurred_within(60)

    rejections.record_failure(OUT_OF_MEMORY)

    assert not occurred_before
    assert rejections.occurred_within(60)
    assert not rejections.occurred_within(0)
    assert rejections.cause == "OOM command not allowed"


def test_an_incident_distinguishes_missing_replicas_from_other_rejections() -> None:
    rejections = StoreMonitor(Metrics()).rejections

    rejections.record_failure(UnderReplicated("0 of 1 replicas", []))
    was_under_replicated = rejections.is_under_replicated
    rejections.record_failure(OUT_OF_MEMORY)

    assert was_under_replicated
    assert not rejections.is_under_replicated


def test_an_outage_of_one_node_is_separate_from_the_outages_of_others(log: pytest.LogCaptureFixture) -> None:
    monitor = StoreMonitor(Metrics())

    node, other = monitor.for_node("127.0.0.1:7001"), monitor.for_node("127.0.0.1:7002")

    node.outage.record_failure(TimeoutError("after 2 s"))
    other.observe_round_trip(0.001, 1)
    node.observe_round_trip(0.001, 1)

    assert [record.getMessage() for record in log.records] == [
        "Redis node 127.0.0.1:7001 does not respond: TimeoutError: after 2 s",
        "Redis node 127.0.0.1:7001 responds again",
    ]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError(), "timeout"),
        (RedisTimeoutError(), "timeout"),
        (ConnectionRefusedError(), "connection"),
        (RedisConnectionError(), "connection"),
        (CommandRejected("OOM command not allowed"), "refused"),
        (ServerDemoted("You can't write against a read only replica."), "demoted"),
        (ValueError("unexpected"), "other"),
    ],
)
def test_failures_are_counted_by_kind(error: Exception, kind: str) -> None:
    metrics = Metrics()

    StoreMonitor(metrics).outage.record_failure(error)

    assert counted(metrics.store_errors) == {kind: 1}


def test_the_monitor_of_a_node_is_shared_while_it_is_used() -> None:
    monitor = StoreMonitor(Metrics())

    node = monitor.for_node("node:7001")

    assert monitor.for_node("node:7001") is node


def test_the_monitor_of_a_former_node_is_freed() -> None:
    monitor = StoreMonitor(Metrics())

    for port in range(1000):
        monitor.for_node(f"node:{port}")

    assert len(monitor._nodes) == 0
