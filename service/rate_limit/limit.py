"""Limits, their state, and the RateLimit headers of responses."""

from collections.abc import Mapping
from typing import NamedTuple

from service.settings.rate_limits import Rate


class Limit:
    """A rate with the name that headers, metrics and errors use."""

    def __init__(self, name: str, rate: Rate) -> None:
        self.name = name
        self.quota = rate.quota
        self.interval_us = rate.interval_us
        self.policy = f'"{name}";q={rate.quota};w={rate.window_seconds}'
        """The item of the RateLimit-Policy header."""


class LimitState(NamedTuple):
    """The state of a limit after a request."""

    limit: Limit
    remaining: int
    reset_seconds: int
    """Seconds until the whole quota is available, or the next request if nothing remains."""

    def __str__(self) -> str:
        """Return the item of the RateLimit header."""
        return f'"{self.limit.name}";r={self.remaining};t={self.reset_seconds}'


class RateLimitStatus:
    """The state of each limit that counted a request."""

    def __init__(self) -> None:
        self._states: list[LimitState] = []

    def add(self, state: LimitState) -> None:
        self._states.append(state)

    def headers(self) -> Mapping[str, str]:
        """Return the header fields of draft-ietf-httpapi-ratelimit-headers, if a limit counted the request."""
        states = self._states
        if not states:
            return {}
        return {
            "RateLimit-Policy": ", ".join([state.limit.policy for state in states]),
            "RateLimit": ", ".join(map(str, states)),
        }


class Allowance(NamedTuple):
    """The limits of one kind of subject. None: no limit."""

    requests: Limit | None
    failed_lookups: Limit | None

    def __bool__(self) -> bool:
        return self != (None, None)


def allowance(subject: str, requests: Rate | None, failed_lookups: Rate | None) -> Allowance:
    return Allowance(
        requests and Limit(subject, requests),
        failed_lookups and Limit(f"{subject}-guesses", failed_lookups),
    )
