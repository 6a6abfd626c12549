"""Periodic work continues after every kind of failure."""

import asyncio
from collections.abc import Callable

import pytest

from service.errors import StoreUnavailable
from service.maintenance.periodic import run_periodically


class FailingWork:
    """Work that fails once. `has_continued` is set when it runs again."""

    def __init__(self, fail: Callable[[], object]) -> None:
        self._fail = fail
        self._runs = 0
        self.has_continued = asyncio.Event()

    async def run(self) -> None:
        self._runs += 1
        if self._runs == 1:
            await asyncio.sleep(0)
            self._fail()
        self.has_continued.set()


def raise_error(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "error",
    [StoreUnavailable("away"), TimeoutError(), TypeError("an unexpected reply"), asyncio.CancelledError()],
    ids=lambda error: type(error).__name__,
)
async def test_work_runs_again_after_an_error(error: BaseException) -> None:
    work = FailingWork(raise_error(error))

    async with run_periodically("the work", work.run, every_seconds=0.01, timeout_seconds=10):
        await work.has_continued.wait()


async def test_an_unexpected_error_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    work = FailingWork(raise_error(TypeError("an unexpected reply")))

    async with run_periodically("the work", work.run, every_seconds=0.01, timeout_seconds=10):
        await work.has_continued.wait()

    assert "the work failed and will run again" in caplog.messages


async def test_pauses_grow_while_work_keeps_failing(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def record_pause(stopped: asyncio.Event, seconds: float) -> bool:
        pauses.append(seconds)
        await asyncio.sleep(0)
        return len(pauses) > 9 or stopped.is_set()

    monkeypatch.setattr("service.maintenance.periodic._is_set_within", record_pause)
    monkeypatch.setattr("random.uniform", lambda *_: 1.0)
    fail = raise_error(TypeError("an unexpected reply"))

    async def run() -> None:
        fail()

    async with run_periodically("the work", run, every_seconds=5, timeout_seconds=10):
        async with asyncio.timeout(10):
            while len(pauses) <= 9:  # noqa: ASYNC110
                await asyncio.sleep(0)

    assert pauses[1:] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
