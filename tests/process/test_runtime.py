"""Tests the limit of open files and the options of garbage collection."""

import gc
import resource
from collections.abc import Callable, Iterator
from weakref import ref

import pytest

from service.process.runtime import raise_open_file_limit, tune_garbage_collection

SetLimit = Callable[[int, int], list[tuple[int, int]]]
NO_LIMIT = resource.RLIM_INFINITY


@pytest.fixture
def set_limit(monkeypatch: pytest.MonkeyPatch) -> SetLimit:
    """Set the soft and the hard limit. Returns the list of later changes."""
    changes: list[tuple[int, int]] = []

    def set_limit(soft: int, hard: int) -> list[tuple[int, int]]:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
        monkeypatch.setattr(resource, "setrlimit", lambda _, limits: changes.append(limits))
        return changes

    return set_limit


@pytest.fixture
def restored_gc() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


class Cycle:
    def __init__(self) -> None:
        self.itself = self


@pytest.mark.parametrize("limits", [(20_000, 20_000), (NO_LIMIT, NO_LIMIT)], ids=["sufficient", "unlimited"])
def test_a_sufficient_limit_is_not_changed(set_limit: SetLimit, limits: tuple[int, int]) -> None:
    changes = set_limit(*limits)

    assert raise_open_file_limit(10_000) == 10_000
    assert changes == []


@pytest.mark.parametrize("hard", [20_000, NO_LIMIT])
def test_the_soft_limit_is_raised_as_far_as_necessary(set_limit: SetLimit, hard: int) -> None:
    changes = set_limit(1024, hard)

    assert raise_open_file_limit(10_000) == 10_000
    assert changes == [(10_512, hard)]


def test_a_low_hard_limit_reduces_the_number_of_connections(
    set_limit: SetLimit, caplog: pytest.LogCaptureFixture
) -> None:
    changes = set_limit(1024, 4096)

    assert raise_open_file_limit(10_000) == 4096 - 512
    assert changes == [(4096, 4096)]
    assert caplog.messages == [
        "SESSION_MAX_CONNECTIONS=10000: the limit of open files (ulimit -n) allows 3584 connections"
    ]


@pytest.mark.usefixtures("restored_gc")
def test_objects_of_the_startup_are_excluded_from_collections() -> None:
    tune_garbage_collection()

    assert gc.get_freeze_count() > len(gc.get_objects())


@pytest.mark.usefixtures("restored_gc")
def test_later_cycles_are_collected() -> None:
    tune_garbage_collection()
    later = ref(Cycle())

    gc.collect()

    assert later() is None


@pytest.mark.usefixtures("restored_gc")
def test_five_thousand_new_objects_do_not_start_a_collection() -> None:
    tune_garbage_collection()
    collections = gc.get_stats()[0]["collections"]

    kept = [[] for _ in range(5_000)]  # type: ignore[var-annotated]

    assert gc.get_stats()[0]["collections"] == collections
    assert len(kept) == 5_000
