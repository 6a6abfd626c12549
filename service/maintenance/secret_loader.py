"""Load the secret that replicas share from Redis. The first replica creates it."""

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

_Value = bytes | None


class SecretLoader:
    """Loads the shared secret within `wait_seconds`. A failure is logged and delays nothing else.

    Redis may be full or read-only, or the cluster node with the secret may be down. The service then serves sessions
    without their ids in the log. A secret that was loaded before stays in use.
    """

    def __init__(self, redis: RedisClient, keys: Keys, secret: SharedSecret, wait_seconds: float) -> None:
        self._redis = redis
        self._key = keys.secret
        self._secret = secret
        self._wait_seconds = wait_seconds
        self._problem: str | None = None

    async def load(self) -> None:
        """Load the secret, or create it if there is none."""
        await self._load(self._read_or_create)

    async def load_existing(self) -> None:
        """Load the secret if there is one. Writes nothing."""
        await self._load(self._read)

    async def _load(self, read: Callable[[], Awaitable[_Value]]) -> None:
        try:
            async with asyncio.timeout(self._wait_seconds):
                value = await read()
            if value is not None:
                self._secret.load(value.decode(errors="replace"))
        except (StoreUnavailable, ScriptError, TimeoutError, ValueError) as error:
            self._report(str(error) or "Redis did not respond in time")
        else:
            self._problem = None

    async def _read_or_create(self) -> _Value:
        value = await self._read()
        return await self._create() if value is None else value

    async def _read(self) -> _Value:
        value: _Value
        (value,) = await self._redis.query(("GET", self._key))
        return value

    async def _create(self) -> _Value:
        """Create the secret, unless another replica has just created one. Return the one in Redis."""
        value: _Value
        _, value = await self._redis.execute_ordered(
            ("SET", self._key, secrets.token_hex(32), "NX"), ("GET", self._key)
        )
        return value

    def _report(self, problem: str) -> None:
        """Log each problem once, and only while there is no secret to hash ids with."""
        if problem != self._problem and not self._secret.is_loaded:
            Context().run(_log.warning, "the log contains no ids: %s cannot be loaded: %s", self._key, problem)
        self._problem = problem
