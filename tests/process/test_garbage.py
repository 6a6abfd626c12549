"""The search for garbage passes over what was there when the service was set up, and goes on over what comes later."""

import gc
from collections.abc import Iterator
from weakref import ref

import pytest

from service.process.garbage import spare_what_stays


@pytest.fixture(autouse=True)
def gc_as_it_was() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


class Cycle:
    def __init__(self) -> None:
        self.itself = self


def test_what_stays_is_not_looked_over_again() -> None:
    spare_what_stays()

    assert gc.get_freeze_count() > len(gc.get_objects())


def test_what_comes_later_is_found() -> None:
    spare_what_stays()
    later = ref(Cycle())

    gc.collect()

    assert later() is None


def test_it_takes_thousands_of_objects_for_a_search_to_begin() -> None:
    spare_what_stays()
    searches = gc.get_stats()[0]["collections"]

    kept = [[] for _ in range(5_000)]  # type: ignore[var-annotated]

    assert gc.get_stats()[0]["collections"] == searches
    assert len(kept) == 5_000
