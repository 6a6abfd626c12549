"""As many connections as the system has files for, and no more."""

import resource
from collections.abc import Callable

import pytest

from service.process.open_files import room_for

Limited = Callable[[int, int], list[tuple[int, int]]]
NO_LIMIT = resource.RLIM_INFINITY


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Limited:
    """Sets a limit, soft and hard, and gives the list of what it is changed to."""
    changes: list[tuple[int, int]] = []

    def limit(soft: int, hard: int) -> list[tuple[int, int]]:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
        monkeypatch.setattr(resource, "setrlimit", lambda _, changed: changes.append(changed))
        return changes

    return limit


@pytest.mark.parametrize("limit", [(20_000, 20_000), (NO_LIMIT, NO_LIMIT)], ids=["enough", "without end"])
def test_where_there_is_room_nothing_is_changed(limited: Limited, limit: tuple[int, int]) -> None:
    changes = limited(*limit)

    assert room_for(10_000) == 10_000
    assert changes == []


@pytest.mark.parametrize("hard", [20_000, NO_LIMIT])
def test_the_limit_is_raised_as_far_as_is_needed(limited: Limited, hard: int) -> None:
    changes = limited(1024, hard)

    assert room_for(10_000) == 10_000
    assert changes == [(10_512, hard)]


def test_where_it_may_not_be_raised_so_far_there_is_room_for_fewer(
    limited: Limited, caplog: pytest.LogCaptureFixture
) -> None:
    changes = limited(1024, 4096)

    assert room_for(10_000) == 4096 - 512
    assert changes == [(4096, 4096)]
    assert caplog.messages == ["SESSION_MAX_CONNECTIONS=10000: there is room for 3584, for want of files (ulimit -n)"]
