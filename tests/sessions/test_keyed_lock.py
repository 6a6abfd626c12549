"""Locks by key."""

import asyncio

import pytest

from service.sessions.keyed_lock import KeyedLock


async def use(locks: KeyedLock, key: str, log: list[str]) -> None:
    async with locks.hold(key):
        log.append("acquired")
        await asyncio.sleep(0)
        log.append("released")


async def test_holders_of_the_same_key_run_one_after_the_other() -> None:
    locks, log = KeyedLock(1), list[str]()

    await asyncio.gather(*(use(locks, "a", log) for _ in range(20)))

    assert log == ["acquired", "released"] * 20


async def test_holders_of_different_keys_run_concurrently() -> None:
    locks, log = KeyedLock(1), list[str]()

    await asyncio.gather(use(locks, "a", log), use(locks, "b", log))

    assert log == ["acquired", "acquired", "released", "released"]


async def test_unused_keys_are_forgotten() -> None:
    locks = KeyedLock(1)

    await asyncio.gather(*(use(locks, key, []) for key in "aaab"))

    assert len(locks) == 0


async def test_a_lock_is_released_after_an_error() -> None:
    locks, log = KeyedLock(1), list[str]()

    with pytest.raises(ZeroDivisionError):
        async with locks.hold("a"):
            raise ZeroDivisionError
    await use(locks, "a", log)

    assert log == ["acquired", "released"]


async def test_waiting_too_long_raises_timeout_error() -> None:
    locks = KeyedLock(0.01)

    async with locks.hold("a"):
        with pytest.raises(TimeoutError):
            await use(locks, "a", [])


async def test_a_cancelled_waiter_does_not_block_the_others() -> None:
    locks, log = KeyedLock(1), list[str]()
    waiting = [asyncio.ensure_future(use(locks, "a", log)) for _ in range(3)]

    async with locks.hold("a"):
        await asyncio.sleep(0)
        waiting[1].cancel()
    await asyncio.wait(waiting)

    assert [task.cancelled() for task in waiting] == [False, True, False]
    assert log == ["acquired", "released"] * 2


async def test_a_cancelled_holder_releases_the_lock() -> None:
    locks, log = KeyedLock(1), list[str]()
    tasks = [asyncio.ensure_future(use(locks, "a", log)) for _ in range(2)]

    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.wait(tasks)

    assert log == ["acquired", "acquired", "released"]
