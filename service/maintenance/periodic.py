"""Run background work periodically, and retry it after failures of Redis."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from redis.exceptions import RedisError

from service.errors import StoreUnavailable
from service.redis_client.monitor import Incident

_FIRST_PAUSE_SECONDS = 0.05  # a start that fails has failed by then
_RETRY_SECONDS = 1

_log = logging.getLogger(__name__)


@asynccontextmanager
async def run_periodically(
    name: str, run: Callable[[], Awaitable[None]], *, every_seconds: float, timeout_seconds: float
) -> AsyncIterator[None]:
    """Call `run` soon after the start and then about every `every_seconds`, until the context ends.

    Each run takes at most `timeout_seconds`. Pauses vary by a quarter, so that replicas do not run at the same time.
    A failed run is repeated after a second. The log shows `name`.
    """
    stopped = asyncio.Event()
    incident = Incident(f"{name} is delayed by the session store", f"{name} continues")
    runs = asyncio.create_task(_run_until(stopped, name, run, every_seconds, timeout_seconds, incident))
    try:
        yield
    finally:
        stopped.set()
        runs.cancel()  # redis-py may swallow the cancellation; `stopped` ends the loop then
        await asyncio.wait([runs])


async def _run_until(
    stopped: asyncio.Event,
    name: str,
    run: Callable[[], Awaitable[None]],
    every_seconds: float,
    timeout_seconds: float,
    incident: Incident,
) -> None:
    pause = _FIRST_PAUSE_SECONDS
    while not await _is_set_within(stopped, pause * random.uniform(0.75, 1.25)):
        has_succeeded = await _has_succeeded(name, run(), timeout_seconds, incident)
        pause = every_seconds if has_succeeded else min(every_seconds, _RETRY_SECONDS)


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


async def _has_succeeded(name: str, run: Awaitable[None], timeout_seconds: float, incident: Incident) -> bool:
    try:
        async with asyncio.timeout(timeout_seconds):
            await run
    except (RedisError, OSError, TimeoutError, StoreUnavailable) as error:
        incident.record_failure(error)
        return False
    except Exception:
        _log.exception("%s failed and will run again", name)
        return False
    incident.record_success()
    return True
