"""The limits by name: what they allow, and what answers say of them."""

from typing import NamedTuple

from service.settings.rates import Rate


class Limit:
    """A rate, and its name in answers, metrics and refusals."""

    def __init__(self, name: str, rate: Rate) -> None:
        self.name = name
        self.quota = rate.quota
        self.interval_us = rate.interval_us
        self.policy = f'"{name}";q={rate.quota};w={rate.window_seconds}'
        """Its item in `RateLimit-Policy`."""


class LimitState(NamedTuple):
    """How many are left of a limit, and in how many seconds all are back; where none are left, in how many the next."""

    limit: Limit
    left: int
    seconds: int

    def __str__(self) -> str:
        """Its item in `RateLimit`."""
        return f'"{self.limit.name}";r={self.left};t={self.seconds}'


class Allowance(NamedTuple):
    """What one kind of subject is allowed, None being no limit: requests, and guesses among them."""

    requests: Limit | None
    failed_lookups: Limit | None

    def __bool__(self) -> bool:
        return self != (None, None)


def allowance(subject: str, requests: Rate | None, failed_lookups: Rate | None) -> Allowance:
    return Allowance(
        requests and Limit(subject, requests),
        failed_lookups and Limit(f"{subject}-guesses", failed_lookups),
    )
