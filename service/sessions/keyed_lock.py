"""Turns: those in a replica who would change the same thing do it one after the other, not at one another's cost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary


class KeyedLock:
    """Turns at whatever has a name, in the order of coming. A name is known for as long as somebody wants its turn."""

    def __init__(self, wait_seconds: float) -> None:
        self._wait_seconds = wait_seconds
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def at(self, name: str) -> AsyncIterator[bool]:
        """Whether others came first. Raises TimeoutError where the turn does not come while there is patience."""
        lock = self._locks.setdefault(name, asyncio.Lock())
        waits = lock.locked()
        async with asyncio.timeout(self._wait_seconds):
            await lock.acquire()
        try:
            yield waits
        finally:
            lock.release()

    def __len__(self) -> int:
        """How many names are known."""
        return len(self._locks)
