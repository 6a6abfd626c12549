"""The size of a fault test: short in `make test`, long in `make test-long`."""

from typing import NamedTuple

import pytest


class Scale(NamedTuple):
    clients: int
    requests: int
    """Successful requests before, between and after faults."""
    seconds: float
    """The duration of a fault that lasts."""
    pause_seconds: float
    """The duration of a fault in which Redis does not respond. It exceeds the store timeout."""
    repetitions: int
    """How often a fault is repeated."""


SHORT = Scale(clients=8, requests=50, seconds=0.8, pause_seconds=3, repetitions=1)
LONG = Scale(clients=16, requests=600, seconds=10, pause_seconds=10, repetitions=3)

_LONG = pytest.param(LONG, id="long", marks=[pytest.mark.long, pytest.mark.timeout(300)])

SCALES = pytest.mark.parametrize("scale", [pytest.param(SHORT, id="short"), _LONG])
LONG_ONLY = pytest.mark.parametrize("scale", [_LONG])
