"""Turns at what has a name: one after the other, and nothing is left of them."""

import asyncio

import pytest

from service.sessions.keyed_lock import KeyedLock


async def changing(turns: KeyedLock, name: str, log: list[str]) -> None:
    async with turns.hold(name):
        log.append("begins")
        await asyncio.sleep(0)
        log.append("ends")


async def test_those_at_one_name_have_theirs_one_after_the_other() -> None:
    turns, log = KeyedLock(1), list[str]()

    await asyncio.gather(*(changing(turns, "a", log) for _ in range(20)))

    assert log == ["begins", "ends"] * 20


async def test_those_at_different_names_do_not_wait_for_one_another() -> None:
    turns, log = KeyedLock(1), list[str]()

    await asyncio.gather(changing(turns, "a", log), changing(turns, "b", log))

    assert log == ["begins", "begins", "ends", "ends"]


async def test_a_name_that_nobody_wants_is_forgotten() -> None:
    turns = KeyedLock(1)

    await asyncio.gather(*(changing(turns, name, []) for name in "aaab"))

    assert len(turns) == 0


async def test_a_turn_that_fails_passes_on() -> None:
    turns, log = KeyedLock(1), list[str]()

    with pytest.raises(ZeroDivisionError):
        async with turns.hold("a"):
            raise ZeroDivisionError
    await changing(turns, "a", log)

    assert log == ["begins", "ends"]


async def test_who_loses_patience_is_told() -> None:
    turns = KeyedLock(0.01)

    async with turns.hold("a"):
        with pytest.raises(TimeoutError):
            await changing(turns, "a", [])


async def test_who_goes_while_waiting_takes_no_turn_with_it() -> None:
    turns, log = KeyedLock(1), list[str]()
    waiting = [asyncio.ensure_future(changing(turns, "a", log)) for _ in range(3)]

    async with turns.hold("a"):
        await asyncio.sleep(0)
        waiting[1].cancel()
    await asyncio.wait(waiting)

    assert [task.cancelled() for task in waiting] == [False, True, False]
    assert log == ["begins", "ends"] * 2


async def test_who_goes_while_it_is_their_turn_passes_it_on() -> None:
    turns, log = KeyedLock(1), list[str]()
    tasks = [asyncio.ensure_future(changing(turns, "a", log)) for _ in range(2)]

    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.wait(tasks)

    assert log == ["begins", "begins", "ends"]
