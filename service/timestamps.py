"""Instants: whole milliseconds since the epoch inside, ISO 8601 in UTC outside."""

from collections.abc import Sequence
from functools import lru_cache
from time import gmtime, strftime


def iso(instant_ms: int) -> str:
    """`1705314600000` as `2024-01-15T10:30:00.000Z`."""
    seconds, milliseconds = divmod(instant_ms, 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


def iso_bytes(instant_ms: bytes) -> bytes:
    """The same from and to bytes, as an instant is stored and as it is sent."""
    return b"%b.%bZ" % (_to_the_second(instant_ms[:-3]), instant_ms[-3:])


@lru_cache(maxsize=4096)
def _to_the_second(seconds: bytes) -> bytes:
    return _second(int(seconds)).encode()


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(seconds))


def ms_from_time_reply(time: Sequence[bytes | int]) -> int:
    """The reply to TIME in milliseconds, as any lane gives it."""
    return int(time[0]) * 1000 + int(time[1]) // 1000
