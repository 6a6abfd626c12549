"""A lock per key, within one process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary


class KeyedLock:
    """Locks by key, granted in the order of arrival. A key is forgotten when nothing uses it any more."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[bool]:
        """Hold the lock of a key, and yield whether it had to wait. Raises TimeoutError."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        has_waited = lock.locked()
        async with asyncio.timeout(self._timeout_seconds):
            await lock.acquire()
        try:
            yield has_waited
        finally:
            lock.release()

    def __len__(self) -> int:
        return len(self._locks)
