"""Run background work periodically, and retry it after failures of Redis."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Literal

from redis.exceptions import RedisError

from service.errors import StoreUnavailable
from service.redis_client.monitor import Incident

_FIRST_PAUSE_SECONDS = 0.05  # a start that fails has failed by then
_RETRY_SECONDS = 1
_MAX_RETRY_SECONDS = 60

_Outcome = Literal["succeeded", "delayed", "failed"]
"""`delayed`: Redis is unavailable. `failed`: the work itself has a fault, so that a retry soon is of little use."""

_log = logging.getLogger(__name__)


@asynccontextmanager
async def run_periodically(
    name: str, run: Callable[[], Awaitable[None]], *, every_seconds: float, timeout_seconds: float
) -> AsyncIterator[None]:
    """Call `run` soon after the start and then about every `every_seconds`, until the context ends.

    Each run takes at most `timeout_seconds`. Pauses vary by a quarter, so that replicas do not run at the same time.
    A run is repeated after a second if Redis is unavailable, and after growing pauses if it fails for another reason.
    The log shows `name`.
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
    retry_seconds = first_retry_seconds = min(every_seconds, _RETRY_SECONDS)
    while not await _is_set_within(stopped, pause * random.uniform(0.75, 1.25)):
        match await _outcome(name, run, timeout_seconds, incident):
            case "succeeded":
                pause, retry_seconds = every_seconds, first_retry_seconds
            case "delayed":
                pause, retry_seconds = first_retry_seconds, first_retry_seconds
            case "failed":
                pause, retry_seconds = retry_seconds, min(2 * retry_seconds, _MAX_RETRY_SECONDS)


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


async def _outcome(
    name: str, run: Callable[[], Awaitable[None]], timeout_seconds: float, incident: Incident
) -> _Outcome:
    task = asyncio.current_task()
    assert task is not None
    try:
        async with asyncio.timeout(timeout_seconds):
            await run()
    except (RedisError, OSError, TimeoutError, StoreUnavailable) as error:
        incident.record_failure(error)
        return "delayed"
    except (Exception, asyncio.CancelledError):
        if task.cancelling():  # otherwise the run awaited something that was cancelled
            raise
        _log.exception("%s failed and will run again", name)
        return "failed"
    incident.record_success()
    return "succeeded"
