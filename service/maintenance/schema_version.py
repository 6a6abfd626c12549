"""Check the schema version of the data in Redis. A replica serves only the version that it supports."""

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
    """The data has a schema version that this release does not support. Nothing was read or changed."""


class SchemaVersion:
    """The result of the last check. Until the first check succeeds, no version counts as supported.

    A check that finds a supported version also loads the shared secret, so that it is there before any request is
    served. `redis` should not be the client that serves requests.
    """

    def __init__(self, redis: RedisClient, keys: Keys, secret_loader: SecretLoader) -> None:
        self._redis = redis
        self._keys = keys
        self._secret_loader = secret_loader
        self._first_check: asyncio.Task[StoreUnavailable | None] | None = None
        self.was_checked = False
        """Whether a check has ever succeeded."""
        self.problem: str | None = None
        """Why the version is not supported, or None."""

    @property
    def is_supported(self) -> bool:
        """Whether the last check found a supported version. False before the first check."""
        return self.was_checked and self.problem is None

    async def check(self) -> None:
        """Read the version, and create the shared secret if there is none.

        Raises StoreUnavailable; the result of the check before then stays valid.
        """
        await self._check(self._secret_loader.load)

    async def check_read_only(self) -> None:
        """Read the version, and write nothing. Raises StoreUnavailable."""
        await self._check(self._secret_loader.load_existing)

    async def check_supported(self) -> None:
        """Check. Raises StoreUnavailable, and UnknownSchemaVersion if the version is not supported."""
        await self.check()
        self._raise_problem()

    async def check_supported_read_only(self) -> None:
        """Check, and write nothing. Raises like check_supported()."""
        await self.check_read_only()
        self._raise_problem()

    async def require_supported(self) -> None:
        """Raise UnknownSchemaVersion unless the last check found a supported version.

        Concurrent calls before the first check share one. Raises StoreUnavailable if it fails.
        """
        if not self.was_checked:
            await self._check_once()
        self._raise_problem()

    def if_supported(self, run: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """Wrap `run` so that each call checks the version first. Raises StoreUnavailable if it is not supported.

        After one successful check, `run` is called although a check fails: one node of a cluster may be down.
        """

        async def check_and_run() -> None:
            try:
                await self.check_supported()
            except StoreUnavailable:
                if not self.is_supported:
                    raise
            await run()

        return check_and_run

    async def _check(self, load_secret: Callable[[], Awaitable[None]]) -> None:
        problem = await self._read_problem()
        if problem is not None and problem != self.problem:
            Context().run(_log.warning, "requests about sessions are rejected: %s", problem)
        if problem is None:
            await load_secret()
        self.problem = problem
        self.was_checked = True

    async def _read_problem(self) -> str | None:
        try:
            (version,) = await self._redis.query(("GET", self._keys.layout))
        except ScriptError:
            return f"{self._keys.layout} in Redis is not a string, so the schema version of the data is unknown."
        if version is None or version == SCHEMA_VERSION.encode():
            return None
        found = version.decode(errors="replace")
        return f"The data in Redis has schema version {found}; this release supports {SCHEMA_VERSION}."

    async def _check_once(self) -> None:
        if self._first_check is None:
            self._first_check = asyncio.get_running_loop().create_task(self._result_of_check(), context=Context())
        error = await asyncio.shield(self._first_check)
        if error is not None:
            raise StoreUnavailable(error.cause)

    async def _result_of_check(self) -> StoreUnavailable | None:
        try:
            await self.check()
        except StoreUnavailable as error:
            return error
        finally:
            self._first_check = None
        return None

    def _raise_problem(self) -> None:
        if self.problem is not None:
            raise UnknownSchemaVersion(self.problem)
