"""Settings of rate limits and trusted proxies."""

import re
from typing import NamedTuple

from pydantic import field_validator
from pydantic_settings import BaseSettings

from service.settings.http import Network, parse_networks

OFF = "off"
MAX_QUOTA = 1_000_000

_RATE = re.compile(r"(\d{1,9})/(second|minute|hour|day)", re.ASCII)
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}


class Rate(NamedTuple):
    """A token bucket of size `quota` that refills evenly within `window_seconds`."""

    quota: int
    window_seconds: int

    @property
    def interval_us(self) -> int:
        """Microseconds until the next token, rounded up so that a window never refills more than the quota."""
        return -(-self.window_seconds * 1_000_000 // self.quota)

    @property
    def tenth(self) -> "Rate":
        """A tenth of the quota, but at least 1."""
        return Rate(max(1, self.quota // 10), self.window_seconds)


class RateLimitSettings(BaseSettings):
    """Rates of requests and of failed lookups, and the proxies whose X-Forwarded-For is used."""

    session_rate_per_address: str = OFF
    session_rate_per_caller: str = OFF
    session_guesses_per_address: str | None = None
    session_guesses_per_caller: str | None = None
    trusted_proxies: str = ""

    @property
    def rate_per_address(self) -> Rate | None:
        return parse_rate(self.session_rate_per_address)

    @property
    def rate_per_caller(self) -> Rate | None:
        return parse_rate(self.session_rate_per_caller)

    @property
    def failed_lookups_per_address(self) -> Rate | None:
        return _failed_lookups(self.session_guesses_per_address, self.rate_per_address)

    @property
    def failed_lookups_per_caller(self) -> Rate | None:
        return _failed_lookups(self.session_guesses_per_caller, self.rate_per_caller)

    @property
    def trusted_networks(self) -> list[Network]:
        return parse_networks(self.trusted_proxies)

    @field_validator(
        "session_rate_per_address",
        "session_rate_per_caller",
        "session_guesses_per_address",
        "session_guesses_per_caller",
    )
    @classmethod
    def _validate_rate(cls, rate: str | None) -> str | None:
        if rate is not None:
            parse_rate(rate)
        return rate

    @field_validator("trusted_proxies")
    @classmethod
    def _validate_trusted_proxies(cls, proxies: str) -> str:
        parse_networks(proxies)
        return proxies


def parse_rate(text: str) -> Rate | None:
    """Parse a rate such as `100/minute`, or return None for `off`. Raises ValueError."""
    if text == OFF:
        return None
    match = _RATE.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= MAX_QUOTA:
        raise ValueError(
            f"must be a rate such as 100/minute (second, minute, hour or day), between 1 and {MAX_QUOTA}, or {OFF}"
        )
    return Rate(int(match[1]), _SECONDS[match[2]])


def _failed_lookups(rate: str | None, requests: Rate | None) -> Rate | None:
    return parse_rate(rate) if rate is not None else requests and requests.tenth
