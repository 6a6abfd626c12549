"""Work beside the requests, done again and again; trouble with Redis only puts it off."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from redis.exceptions import RedisError

from service.errors import StoreUnavailable
from service.redis_client.monitor import Incident

_FIRST_PAUSE_SECONDS = 0.05  # by then a start that cannot be is over
_RETRY_SECONDS = 1

_log = logging.getLogger(__name__)


@asynccontextmanager
async def repeated(
    name: str, round_: Callable[[], Awaitable[None]], *, every_seconds: float, timeout_seconds: float
) -> AsyncIterator[None]:
    """Do `round_` almost at once and then about every so often, for as long as this lasts.

    Each round takes `timeout_seconds` at most. The pauses vary by a quarter, so that replicas do not march in step.
    `name` is what the log calls it.
    """
    stopped = asyncio.Event()
    trouble = Incident(f"{name} is held up by the session store", f"{name} goes on")
    rounds = asyncio.create_task(_rounds(round_, every_seconds, timeout_seconds, trouble, stopped))
    try:
        yield
    finally:
        stopped.set()
        rounds.cancel()  # which redis-py may swallow
        await asyncio.wait([rounds])


async def _rounds(
    round_: Callable[[], Awaitable[None]],
    every_seconds: float,
    timeout_seconds: float,
    trouble: Incident,
    stopped: asyncio.Event,
) -> None:
    pause = _FIRST_PAUSE_SECONDS
    while not await _stopped_within(stopped, pause * random.uniform(0.75, 1.25)):
        done = await _done(round_(), timeout_seconds, trouble)
        pause = every_seconds if done else min(every_seconds, _RETRY_SECONDS)


async def _stopped_within(stopped: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(stopped.wait(), seconds)
    return stopped.is_set()


async def _done(round_: Awaitable[None], timeout_seconds: float, trouble: Incident) -> bool:
    try:
        async with asyncio.timeout(timeout_seconds):
            await round_
    except (RedisError, OSError, TimeoutError, StoreUnavailable) as error:
        trouble.record_failure(error)
        return False
    except Exception:
        _log.exception("a round failed; the next one begins anew")
        return False
    trouble.record_success()
    return True
