"""The one seam to Redis: a round trip goes out, replies come back, and every failure has one of two names.

StoreUnavailable says that Redis did not do what was asked; ScriptFault that a script of ours broke.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from service.errors import StoreUnavailable
from service.scripts import Command, with_text

Reply = Any
_T = TypeVar("_T")

_log = logging.getLogger(__name__)


class ScriptFault(Exception):  # noqa: N818  (it is answered 500)
    """A script of ours failed, or met a key of the wrong type."""


class Lane:
    """A round trip to one Redis server for each request, at most `timeout_seconds` with all its waiting."""

    def __init__(self, client: Redis, timeout_seconds: float) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds
        self._in_trouble = False

    async def read(self, key: str) -> tuple[Mapping[bytes, bytes], int]:
        """A hash (empty where there is none) and the instant of Redis's clock, in milliseconds, just after it was read.

        Where the connection broke it is asked for once more.
        """
        commands: tuple[Command, ...] = (("HGETALL", key), ("TIME",))
        try:
            fields, (seconds, microseconds) = await self._trip(lambda: self._exchange(commands))
        except _ConnectionLost:
            fields, (seconds, microseconds) = await self._trip(lambda: self._exchange(commands))
        return fields, seconds * 1000 + microseconds // 1000

    async def change(self, *commands: Command) -> list[Reply]:
        """The replies to commands that are carried out in their order. Nothing is sent twice."""
        return await self._trip(lambda: self._exchange(commands))

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _exchange(self, commands: tuple[Command, ...]) -> list[Reply]:
        replies = await self._pipelined(commands)
        unknown = [place for place, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            again = await self._pipelined(tuple(with_text(commands[place]) for place in unknown))
            for place, reply in zip(unknown, again, strict=True):
                replies[place] = reply
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    async def _pipelined(self, commands: tuple[Command, ...]) -> list[Reply]:
        pipeline: Pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return await pipeline.execute(raise_on_error=False)

    async def _trip(self, exchange: Callable[[], Awaitable[_T]]) -> _T:
        """Turn what Redis and the network raise into the two names of this seam."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                replies = await exchange()
        except ReadOnlyError as error:
            await self._client.connection_pool.disconnect()
            raise self._unavailable(error) from error
        except ResponseError as error:
            if _is_our_fault(error):
                raise ScriptFault(str(error)) from error
            raise self._unavailable(error) from error
        except RedisConnectionError as error:
            raise _ConnectionLost(self._unavailable(error).why) from error
        except (RedisError, OSError, TimeoutError) as error:
            raise self._unavailable(error) from error
        if self._in_trouble:
            self._in_trouble = False
            _log.info("the session store answers again")
        return replies

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        if not self._in_trouble:
            self._in_trouble = True
            _log.warning("the session store is in trouble: %s: %s", type(error).__name__, error)
        return StoreUnavailable(f"{type(error).__name__}: {error}")


class _ConnectionLost(StoreUnavailable):
    """The connection was refused or broke; what was sent may have been carried out."""


def _is_our_fault(error: ResponseError) -> bool:
    message = str(error)
    return message.startswith("WRONGTYPE") or "user_script:" in message.partition("script: ")[0]
