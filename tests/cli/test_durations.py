"""Durations for people."""

import pytest

from service.cli.durations import human, relative


@pytest.mark.parametrize(
    ("duration_ms", "said"),
    [
        (0, "0ms"),
        (999, "999ms"),
        (1000, "1s"),
        (59_999, "59s"),
        (60_000, "1m"),
        (750_000, "12m 30s"),
        (3_600_000, "1h"),
        (3_601_000, "1h"),
        (7_500_000, "2h 5m"),
        (90_000_000, "1d 1h"),
        (1_000 * 86_400_000, "1000d"),
    ],
)
def test_a_duration_is_said_in_two_units_at_most(duration_ms: int, said: str) -> None:
    assert human(duration_ms) == said


def test_an_instant_is_said_from_now() -> None:
    assert relative(1_750_000, 1_000_000) == "in 12m 30s"
    assert relative(1_000_000, 1_004_000) == "4s ago"
    assert relative(1_000_000, 1_000_000) == "0ms ago"
