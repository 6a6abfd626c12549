"""Work beside the requests, done again and again; trouble with Redis only puts it off."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from redis.exceptions import RedisError

from service.errors import StoreUnavailable

_RETRY_SECONDS = 1


@asynccontextmanager
async def repeated(
    round_: Callable[[], Awaitable[None]], *, every_seconds: float, timeout_seconds: float
) -> AsyncIterator[None]:
    """Do `round_` at once and then about every so often, for as long as this lasts.

    Each round takes `timeout_seconds` at most. The pauses vary by a quarter, so that replicas do not march in step.
    """
    stopped = asyncio.Event()
    rounds = asyncio.create_task(_rounds(round_, every_seconds, timeout_seconds, stopped))
    try:
        yield
    finally:
        stopped.set()
        rounds.cancel()  # which redis-py may swallow
        await asyncio.wait([rounds])


async def _rounds(
    round_: Callable[[], Awaitable[None]], every_seconds: float, timeout_seconds: float, stopped: asyncio.Event
) -> None:
    while not stopped.is_set():
        pause = every_seconds if await _done(round_(), timeout_seconds) else min(every_seconds, _RETRY_SECONDS)
        with suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), pause * random.uniform(0.75, 1.25))


async def _done(round_: Awaitable[None], timeout_seconds: float) -> bool:
    try:
        async with asyncio.timeout(timeout_seconds):
            await round_
    except (RedisError, OSError, TimeoutError, StoreUnavailable):
        return False
    return True
