"""Instants: whole milliseconds since the epoch inside, ISO 8601 in UTC outside."""

from functools import lru_cache
from time import gmtime, strftime


def iso(instant_ms: int) -> str:
    """`1705314600000` as `2024-01-15T10:30:00.000Z`."""
    seconds, milliseconds = divmod(instant_ms, 1000)
    return f"{_to_the_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=4096)
def _to_the_second(seconds: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(seconds))
