"""What goes on beside the requests: the layout of the data is marked, and what an operator should know is said."""

import logging
import random
from contextlib import suppress

from service.checks import server_checks
from service.errors import StoreUnavailable
from service.lanes.lane import Lane, ScriptFault
from service.lanes.outages import Outages
from service.life.keys import LAYOUT_VERSION, SHARDS, Keys
from service.life.lifecycle import Lifecycle

ROUND_SECONDS = 30

_log = logging.getLogger(__name__)


class Upkeep:
    """Rounds of small looks at Redis over `lane`, which should not be the requests' own."""

    def __init__(self, lane: Lane, keys: Keys, lifecycle: Lifecycle) -> None:
        self._lane = lane
        self._keys = keys
        self._lifecycle = lifecycle
        self._layout_was_marked = False
        self._servers_were_checked = False
        self._checked: set[str] = set()
        self._hashes_were_large = False

    async def round(self) -> None:
        """One look at everything. Raises StoreUnavailable; what could be looked at has been then."""
        outages = Outages()
        if not self._servers_were_checked:
            with outages:
                await server_checks.check(self._lane, self._checked)
                self._servers_were_checked = True
        with outages, suppress(ScriptFault):  # a key that is none of ours: who works with it tells of it
            await self._mark_layout()
        if not self._hashes_were_large:
            with suppress(StoreUnavailable, ScriptFault):  # another shard will do
                await self._warn_of_large_hashes()
        outages.tell()

    async def _mark_layout(self) -> None:
        """The mark never dies: where it has gone, everything has gone. One that is there is left as it is."""
        (mark,) = await self._lane.ask(("GET", self._keys.layout))
        if mark is None and await self._set_mark() and self._layout_was_marked:
            self._lifecycle.all_lost()
        self._layout_was_marked = True

    async def _set_mark(self) -> bool:
        """Whether it was this replica's to set."""
        (done,) = await self._lane.change(("SET", self._keys.layout, LAYOUT_VERSION, "NX"))
        return bool(done)  # OK as it comes, or True as redis-py has it; else None

    async def _warn_of_large_hashes(self) -> None:
        """Metadata longer than hash-max-listpack-value makes a session's hash several times as large."""
        shard = random.choice(SHARDS)
        (last,) = await self._lane.ask(("ZRANGE", self._keys.expiry(shard), -1, -1))
        for session_id in last:
            (encoding,) = await self._lane.ask(("OBJECT", "ENCODING", self._keys.session(session_id.decode())))
            if encoding == b"hashtable":
                self._hashes_were_large = True
                _log.warning(
                    "sessions take more memory in Redis than they need: set hash-max-listpack-value to 10240 there"
                )
