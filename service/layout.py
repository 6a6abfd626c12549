"""The version of the data's layout: data of another one is not for this replica to read or to change."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import wraps

from aiohttp import web

from service.errors import StoreUnavailable
from service.keys import LAYOUT_VERSION, Keys
from service.lane import Lane
from service.middleware import Handle


class Layout:
    """What was found when it was last looked at, over a lane not the requests' own; at first nothing is amiss."""

    def __init__(self, lane: Lane, keys: Keys) -> None:
        self._lane = lane
        self._keys = keys
        self.trouble: str | None = None
        """A sentence, where the data is of a version that this one does not know."""

    async def look(self) -> None:
        """Raises StoreUnavailable and ScriptFault."""
        (found,) = await self._lane.ask(("GET", self._keys.layout))
        self.trouble = None if found is None or found == LAYOUT_VERSION.encode() else _foreign(found)

    def heeded(self, round_: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """The round, after a look, where nothing is amiss. Raises StoreUnavailable where something is.

        A look that fails is no reason: of a cluster it may be one server of many that is away.
        """

        async def heeding() -> None:
            with suppress(StoreUnavailable):
                await self.look()
            self._require_known()
            await round_()

        return heeding

    def before(self, handle: Handle) -> Handle:
        """The handler, where nothing was amiss; else StoreUnavailable."""

        @wraps(handle)
        async def heeding(request: web.Request) -> web.StreamResponse:
            self._require_known()
            return await handle(request)

        return heeding

    def _require_known(self) -> None:
        if self.trouble is not None:
            raise StoreUnavailable(self.trouble)


def _foreign(found: bytes) -> str:
    return f"The data in Redis is of layout {found.decode(errors='replace')}; this version reads {LAYOUT_VERSION}."
