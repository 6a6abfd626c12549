"""What goes on beside the requests: the layout of the data is marked, and what an operator should know is said."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.keys import LAYOUT_VERSION, SHARDS, Keys

_ROUND_SECONDS = 30
_RETRY_SECONDS = 1

_log = logging.getLogger(__name__)


class Upkeep:
    """Rounds of small looks at Redis through `redis`, a client from the side; `timeout_seconds` bounds each round."""

    def __init__(self, redis: Redis, keys: Keys, timeout_seconds: float) -> None:
        self._redis = redis
        self._keys = keys
        self._timeout_seconds = timeout_seconds
        self._hashes_were_large = False

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Make rounds for as long as this lasts, whenever Redis can be reached."""
        stopped = asyncio.Event()
        rounds = asyncio.create_task(self._rounds(stopped))
        try:
            yield
        finally:
            stopped.set()
            rounds.cancel()  # which redis-py may swallow
            await asyncio.wait([rounds])

    async def _rounds(self, stopped: asyncio.Event) -> None:
        while not stopped.is_set():
            pause = _ROUND_SECONDS if await self._done(self.round()) else _RETRY_SECONDS
            with suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), pause)

    async def round(self) -> None:
        """One look at everything. Raises what redis-py raises."""
        await self._redis.set(self._keys.layout, LAYOUT_VERSION, nx=True)
        if not self._hashes_were_large:
            await self._warn_of_large_hashes()

    async def _warn_of_large_hashes(self) -> None:
        """Metadata longer than hash-max-listpack-value makes a session's hash several times as large."""
        shard = random.choice(SHARDS)
        for session_id in cast(list[bytes], await self._redis.zrange(self._keys.expiry(shard), -1, -1)):
            encoding = await self._redis.object("ENCODING", self._keys.session(session_id.decode()))
            if encoding == b"hashtable":
                self._hashes_were_large = True
                _log.warning(
                    "sessions take more memory in Redis than they need: set hash-max-listpack-value to 10240 there"
                )

    async def _done(self, round_: Awaitable[None]) -> bool:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await round_
        except (RedisError, OSError, TimeoutError):
            return False
        return True
