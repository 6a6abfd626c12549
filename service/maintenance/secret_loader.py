"""The secret that replicas share: made by whichever comes first, kept in Redis, and learnt by the others."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from contextvars import Context

from service.errors import StoreUnavailable
from service.redis_client.client import RedisClient
from service.redis_client.errors import ScriptError
from service.sessions.keys import Keys
from service.shared_secret import SharedSecret

_log = logging.getLogger(__name__)

_Found = bytes | None


class SecretLoader:
    """Looks for it over `lane`, for so many seconds at most. Where it cannot be had nothing is held up for it.

    Redis may be full or read-only, or the server of a Cluster that holds it away: sessions are served all the same, and
    their ids are not told until it is known. One that was known stays in force until another is found.
    """

    def __init__(self, redis: RedisClient, keys: Keys, secret: SharedSecret, wait_seconds: float) -> None:
        self._redis = redis
        self._key = keys.secret
        self._secret = secret
        self._wait_seconds = wait_seconds
        self._trouble: str | None = None

    async def learn(self) -> None:
        """Learn it; where there is none, make it first."""
        await self._learn_from(self._found_or_made)

    async def learn_if_made(self) -> None:
        """Learn it where there is one, and change nothing."""
        await self._learn_from(self._found)

    async def _learn_from(self, look: Callable[[], Awaitable[_Found]]) -> None:
        try:
            async with asyncio.timeout(self._wait_seconds):
                found = await look()
            if found is not None:
                self._secret.load(found.decode(errors="replace"))
        except (StoreUnavailable, ScriptError, TimeoutError, ValueError) as error:
            self._say(str(error) or "no answer in time")
        else:
            self._trouble = None

    async def _found_or_made(self) -> _Found:
        found = await self._found()
        return await self._made() if found is None else found

    async def _found(self) -> _Found:
        found: _Found
        (found,) = await self._redis.query(("GET", self._key))
        return found

    async def _made(self) -> _Found:
        """Another replica may have come first: it is its own then."""
        found: _Found
        _, found = await self._redis.execute_ordered(
            ("SET", self._key, secrets.token_hex(32), "NX"), ("GET", self._key)
        )
        return found

    def _say(self, trouble: str) -> None:
        """Once each, and of no request in particular. While one is in force nobody misses another."""
        if trouble != self._trouble and not self._secret.is_loaded:
            Context().run(_log.warning, "no id is told in the log: %s cannot be had: %s", self._key, trouble)
        self._trouble = trouble
