"""What goes on beside the requests: the layout of the data is marked, and what an operator should know is said."""

import logging
import random
from typing import cast

from redis.asyncio import Redis

from service import server_checks
from service.keys import LAYOUT_VERSION, SHARDS, Keys
from service.lifecycle import Lifecycle

ROUND_SECONDS = 30

_log = logging.getLogger(__name__)


class Upkeep:
    """Rounds of small looks at Redis, through a client from the side."""

    def __init__(self, redis: Redis, keys: Keys, lifecycle: Lifecycle) -> None:
        self._redis = redis
        self._keys = keys
        self._lifecycle = lifecycle
        self._layout_was_marked = False
        self._server_was_checked = False
        self._hashes_were_large = False

    async def round(self) -> None:
        """One look at everything. Raises what redis-py raises."""
        if not self._server_was_checked:
            await server_checks.check(self._redis)
            self._server_was_checked = True
        await self._mark_layout()
        if not self._hashes_were_large:
            await self._warn_of_large_hashes()

    async def _mark_layout(self) -> None:
        """The mark never dies: where it has gone, everything has gone."""
        was_missing = await self._redis.set(self._keys.layout, LAYOUT_VERSION, nx=True)
        if was_missing and self._layout_was_marked:
            self._lifecycle.all_lost()
        self._layout_was_marked = True

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
