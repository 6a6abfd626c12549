"""Formats timestamps and durations. Internally, both are integer milliseconds; timestamps count from the epoch."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from time import gmtime, strftime

_EPOCH = datetime.fromtimestamp(0, UTC)
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000))


def iso(timestamp_ms: int) -> str:
    """Return `2024-01-15T10:30:00.000Z` for 1705314600000."""
    seconds, milliseconds = divmod(timestamp_ms, 1000)
    return f"{_format_second(seconds)}.{milliseconds:03d}Z"


def iso_bytes(timestamp_ms: bytes) -> bytes:
    """Like `iso`, from the decimal digits that Redis stores."""
    return b"%b.%bZ" % (_format_second_bytes(timestamp_ms[:-3]), timestamp_ms[-3:])


def parse_timestamp_ms(text: str) -> int:
    """Return the milliseconds of `1705314600000` or of an ISO 8601 time with a UTC offset, or 0 before 1970.

    Raises ValueError.
    """
    if text.isascii() and text.isdigit() and len(text) <= 15:
        return int(text)
    parsed = datetime.fromisoformat(text.replace(" ", "+"))  # an unencoded `+` of a query arrives as a space
    if parsed.tzinfo is None:
        raise ValueError("must have a UTC offset")
    return max((parsed - _EPOCH) // timedelta(milliseconds=1), 0)


@lru_cache(maxsize=4096)
def _format_second_bytes(seconds: bytes) -> bytes:
    return _format_second(int(seconds)).encode()


@lru_cache(maxsize=16)
def _format_second(seconds: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(seconds))


def ms_from_time_reply(reply: Sequence[bytes | int]) -> int:
    """Return the milliseconds of a reply to TIME."""
    return int(reply[0]) * 1000 + int(reply[1]) // 1000


def format_duration(duration_ms: int) -> str:
    """Return `12m 30s`, for example: at most two units, rounded down. Durations below a second are in milliseconds."""
    for index, (unit, size) in enumerate(_UNITS):
        if duration_ms >= size:
            return f"{duration_ms // size}{unit}{_format_rest(duration_ms % size, index + 1)}"
    return f"{duration_ms}ms"


def _format_rest(duration_ms: int, index: int) -> str:
    if index == len(_UNITS):
        return ""
    unit, size = _UNITS[index]
    return f" {duration_ms // size}{unit}" if duration_ms >= size else ""


def format_relative(timestamp_ms: int, now_ms: int) -> str:
    """Return `in 2h 5m` or `3m 1s ago`, for example."""
    if timestamp_ms > now_ms:
        return f"in {format_duration(timestamp_ms - now_ms)}"
    return f"{format_duration(now_ms - timestamp_ms)} ago"
