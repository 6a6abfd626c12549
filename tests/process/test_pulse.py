"""The beats of a worker, as its parent hears them."""

import asyncio
import time

import pytest

from service.process.pulse import BEAT, fell_silent


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.process.pulse.LOOK_SECONDS", 0.02)


async def test_who_says_nothing_for_long_has_fallen_silent() -> None:
    assert await fell_silent(asyncio.StreamReader())


async def test_who_ends_has_not() -> None:
    beats = asyncio.StreamReader()
    beats.feed_data(BEAT)
    beats.feed_eof()

    assert not await fell_silent(beats)


async def test_who_beats_has_not_for_as_long_as_that() -> None:
    beats, loop = asyncio.StreamReader(), asyncio.get_running_loop()
    for number in range(1, 11):
        loop.call_later(0.1 * number, beats.feed_data, BEAT)
    began = loop.time()

    assert await fell_silent(beats)
    assert loop.time() - began > 1 + 15 * 0.02


async def test_a_machine_that_stood_still_silences_nobody() -> None:
    beats, loop = asyncio.StreamReader(), asyncio.get_running_loop()
    loop.call_later(0.05, time.sleep, 1)  # for this long all of it stands still, the parent too
    loop.call_later(1.06, beats.feed_eof)

    assert not await fell_silent(beats)
