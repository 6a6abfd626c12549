"""The version of the data's layout: data of another one is not for this replica to read or to change."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context

from service.errors import StoreUnavailable
from service.maintenance.secret_loader import SecretLoader
from service.redis_client.client import RedisClient
from service.redis_client.errors import ScriptError
from service.sessions.keys import SCHEMA_VERSION, Keys

_log = logging.getLogger(__name__)


class UnknownSchemaVersion(StoreUnavailable):
    """The data is of a layout that this version does not know: nothing was read or changed."""


class SchemaVersion:
    """What was found when it was last looked at, over a lane not the requests' own. Until then nothing may be done."""

    def __init__(self, redis: RedisClient, keys: Keys, shared_secret: SecretLoader) -> None:
        """The secret is learnt with each look that finds this version: it is there before anything is served."""
        self._redis = redis
        self._keys = keys
        self._shared_secret = shared_secret
        self._looking: asyncio.Task[StoreUnavailable | None] | None = None
        self.was_found = False
        """Whether a look has ever succeeded."""
        self.trouble: str | None = None
        """A sentence, where the data is of a version that this one does not know."""

    async def look(self) -> None:
        """Raises StoreUnavailable; what was found before it holds on."""
        await self._look(self._shared_secret.learn)

    async def look_only(self) -> None:
        """The same, and nothing is written: a secret that nobody has made stays unmade."""
        await self._look(self._shared_secret.learn_if_made)

    async def heed(self) -> None:
        """Look. Raises StoreUnavailable, LayoutUnknown where the data is of another layout."""
        await self.look()
        self._require_known()

    async def heed_only(self) -> None:
        """The same, and nothing is written."""
        await self.look_only()
        self._require_known()

    @property
    def is_supported(self) -> bool:
        """Whether the last check found a version that this replica supports. False before the first check."""
        return self.was_found and self.trouble is None

    async def require_supported(self) -> None:
        """Raises UnknownSchemaVersion unless the last check found a supported version.

        Concurrent calls before the first check share one. Raises StoreUnavailable if it fails.
        """
        if not self.was_found:
            await self._first_look()
        self._require_known()

    def heeded(self, round_: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """The round, after a look, where nothing is amiss. Raises StoreUnavailable where something is.

        A look that fails is no reason, once one has succeeded: of a cluster it may be one server of many that is away.
        """

        async def heeding() -> None:
            try:
                await self.heed()
            except StoreUnavailable:
                if self.trouble is not None or not self.was_found:
                    raise
            await round_()

        return heeding

    async def _look(self, learn_secret: Callable[[], Awaitable[None]]) -> None:
        trouble = await self._found()
        if trouble is not None and trouble != self.trouble:
            Context().run(_log.warning, "no session is served: %s", trouble)  # of no request in particular
        if trouble is None:
            await learn_secret()
        self.trouble = trouble
        self.was_found = True

    async def _found(self) -> str | None:
        try:
            (found,) = await self._redis.query(("GET", self._keys.layout))
        except ScriptError:
            return f"{self._keys.layout} in Redis is no string, so the data's layout is unknown."
        return None if found is None or found == SCHEMA_VERSION.encode() else _foreign(found)

    async def _first_look(self) -> None:
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._outcome_of_a_look(), context=Context())
        trouble = await asyncio.shield(self._looking)
        if trouble is not None:
            raise StoreUnavailable(trouble.cause)

    async def _outcome_of_a_look(self) -> StoreUnavailable | None:
        try:
            await self.look()
        except StoreUnavailable as error:
            return error
        finally:
            self._looking = None
        return None

    def _require_known(self) -> None:
        if self.trouble is not None:
            raise UnknownSchemaVersion(self.trouble)


def _foreign(found: bytes) -> str:
    return f"The data in Redis is of layout {found.decode(errors='replace')}; this version reads {SCHEMA_VERSION}."
