"""Rates of requests are parsed, and refill within their window."""

import pytest

from service.settings.rate_limits import MAX_QUOTA, Rate, parse_rate


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1/second", Rate(1, 1)),
        ("100/minute", Rate(100, 60)),
        ("50/hour", Rate(50, 3600)),
        ("7/day", Rate(7, 86_400)),
        (f"{MAX_QUOTA}/day", Rate(MAX_QUOTA, 86_400)),
        ("off", None),
    ],
)
def test_a_rate_is_a_number_and_a_window(text: str, rate: Rate | None) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text",
    ["", "100", "0/minute", f"{MAX_QUOTA + 1}/second", "-1/minute", "1.5/minute", "1/week", "1/ minute", "٣/minute"],
)
def test_another_text_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="must be a rate such as 100/minute"):
        parse_rate(text)


@pytest.mark.parametrize("quota", [1, 3, 7, 1000, MAX_QUOTA])
def test_a_window_never_refills_more_than_the_quota(quota: int) -> None:
    rate = Rate(quota, 1)

    assert rate.interval_us * quota >= 1_000_000
    assert (rate.interval_us - 1) * quota < 1_000_000


@pytest.mark.parametrize(("quota", "tenth"), [(100, 10), (19, 1), (9, 1), (1, 1)])
def test_a_tenth_of_a_rate_is_at_least_one(quota: int, tenth: int) -> None:
    assert Rate(quota, 60).tenth == Rate(tenth, 60)
