"""How long a fault lasts: briefly in `make test`, in full in `make test-long`."""

from typing import NamedTuple

import pytest


class Length(NamedTuple):
    steady: int
    """How many requests are answered before, between and after faults."""
    seconds: float
    """How long a fault lasts that lasts."""
    times: int
    """How often one is repeated."""
    clients: int


SHORT = Length(steady=100, seconds=1, times=1, clients=8)
LONG = Length(steady=600, seconds=10, times=3, clients=16)

LENGTHS = pytest.mark.parametrize(
    "length",
    [
        pytest.param(SHORT, id="short"),
        pytest.param(LONG, id="long", marks=[pytest.mark.long, pytest.mark.timeout(300)]),
    ],
)
