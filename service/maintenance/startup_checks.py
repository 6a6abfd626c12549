"""What goes on beside the requests: the layout of the data is marked, and what an operator should know is said."""

import logging
import random
from contextlib import suppress

from service.errors import StoreUnavailable
from service.maintenance import server_checks
from service.redis_client.client import PartialFailure, RedisClient
from service.redis_client.errors import ScriptError
from service.sessions.events import SessionEvents
from service.sessions.keys import SCHEMA_VERSION, SHARDS, Keys

ROUND_SECONDS = 30

_log = logging.getLogger(__name__)


class StartupChecks:
    """Rounds of small looks at Redis over `lane`, which should not be the requests' own."""

    def __init__(self, redis: RedisClient, keys: Keys, events: SessionEvents) -> None:
        self._redis = redis
        self._keys = keys
        self._events = events
        self._layout_was_marked = False
        self._servers_were_checked = False
        self._checked: set[str] = set()
        self._hashes_were_large = False

    async def round(self) -> None:
        """One look at everything. Raises StoreUnavailable; what could be looked at has been then."""
        failures = PartialFailure()
        if not self._servers_were_checked:
            with failures:
                await server_checks.check(self._redis, self._checked)
                self._servers_were_checked = True
        with failures, suppress(ScriptError):  # a key that is none of ours: who works with it tells of it
            await self._mark_layout()
        if not self._hashes_were_large:
            with suppress(StoreUnavailable, ScriptError):  # another shard will do
                await self._warn_of_large_hashes()
        failures.raise_if_any()

    async def _mark_layout(self) -> None:
        """The mark never dies: where it has gone, everything has gone. One that is there is left as it is."""
        (mark,) = await self._redis.query(("GET", self._keys.layout))
        if mark is None and await self._set_mark() and self._layout_was_marked:
            self._events.store_emptied()
        self._layout_was_marked = True

    async def _set_mark(self) -> bool:
        """Whether it was this replica's to set."""
        (done,) = await self._redis.execute(("SET", self._keys.layout, SCHEMA_VERSION, "NX"))
        return bool(done)  # OK as it comes, or True as redis-py has it; else None

    async def _warn_of_large_hashes(self) -> None:
        """Metadata longer than hash-max-listpack-value makes a session's hash several times as large."""
        shard = random.choice(SHARDS)
        (last,) = await self._redis.query(("ZRANGE", self._keys.expiry(shard), -1, -1))
        for session_id in last:
            (encoding,) = await self._redis.query(("OBJECT", "ENCODING", self._keys.session(session_id.decode())))
            if encoding == b"hashtable":
                self._hashes_were_large = True
                _log.warning(
                    "sessions take more memory in Redis than they need: set hash-max-listpack-value to 10240 there"
                )
