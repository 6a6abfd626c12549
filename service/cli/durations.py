"""Durations for people: `12m 30s`, `in 2h 5m`, `3m 1s ago`."""

_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000))


def human(duration_ms: int) -> str:
    """In its largest unit and the next, rounded down; less than a second in milliseconds."""
    for place, (unit, size) in enumerate(_UNITS):
        if duration_ms >= size:
            rest = _next_unit(duration_ms % size, place + 1)
            return f"{duration_ms // size}{unit}{rest}"
    return f"{duration_ms}ms"


def _next_unit(duration_ms: int, place: int) -> str:
    if place == len(_UNITS):
        return ""
    unit, size = _UNITS[place]
    return f" {duration_ms // size}{unit}" if duration_ms >= size else ""


def relative(instant_ms: int, now_ms: int) -> str:
    if instant_ms > now_ms:
        return f"in {human(instant_ms - now_ms)}"
    return f"{human(now_ms - instant_ms)} ago"
