"""Timestamps in ISO 8601, and durations and relative timestamps for people."""

import pytest

from service.timestamps import format_duration, format_relative, iso


@pytest.mark.parametrize(
    ("duration_ms", "text"),
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
def test_a_duration_has_at_most_two_units(duration_ms: int, text: str) -> None:
    assert format_duration(duration_ms) == text


def test_a_timestamp_is_relative_to_now() -> None:
    assert format_relative(1_750_000, 1_000_000) == "in 12m 30s"
    assert format_relative(1_000_000, 1_004_000) == "4s ago"
    assert format_relative(1_000_000, 1_000_000) == "0ms ago"


@pytest.mark.parametrize(
    ("timestamp_ms", "text"),
    [
        (1705314600000, "2024-01-15T10:30:00.000Z"),
        (1705314600007, "2024-01-15T10:30:00.007Z"),
        (1705314600999, "2024-01-15T10:30:00.999Z"),
        (1709251199999, "2024-02-29T23:59:59.999Z"),
        (0, "1970-01-01T00:00:00.000Z"),
        (253402300799999, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_timestamps_are_in_utc_with_milliseconds(timestamp_ms: int, text: str) -> None:
    assert iso(timestamp_ms) == text
