"""A rate, as settings have it: so many in a second, a minute, an hour or a day."""

import re
from typing import NamedTuple

OFF = "off"
MOST = 1_000_000

_WRITTEN = re.compile(r"(\d{1,9})/(second|minute|hour|day)", re.ASCII)
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}


class Rate(NamedTuple):
    """A bucket holds `quota` and fills evenly: as much may come at once, and in the long run in each window."""

    quota: int
    window_seconds: int

    @property
    def interval_us(self) -> int:
        """In how many microseconds one comes back: rounded up, so that it is never more than the quota in a window."""
        return -(-self.window_seconds * 1_000_000 // self.quota)

    @property
    def tenth(self) -> "Rate":
        return Rate(max(1, self.quota // 10), self.window_seconds)


def read_rate(text: str) -> Rate | None:
    """None where it is off. Raises ValueError."""
    if text == OFF:
        return None
    found = _WRITTEN.fullmatch(text)
    if found is None or not 1 <= int(found[1]) <= MOST:
        raise ValueError(f"must be like 100/minute (second, minute, hour, day), from 1 to {MOST}, or {OFF}")
    return Rate(int(found[1]), _SECONDS[found[2]])
