"""Read a hash with one Redis client from 32 concurrent callers, and print the number of calls and their CPU time.

    python callers.py CLIENT PORT SECONDS

The imports are inside functions because no environment has all clients.
"""
# mypy: disable-error-code="import-not-found, import-untyped"

import asyncio
import json
import resource
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import uvloop

CALLERS = 32
WARM_UP_SECONDS = 0.3
KEY = "session:{ab}:benchmark"
FIELDS = (
    *("agentId", "userId", "createdAt", "lastActivity", "renewedAt", "expiresAt", "timeoutMinutes"),
    *("autoRenew", "maxDurationMinutes", "warningThresholdMinutes", "renewalCount", "revision", "metadata"),
)

Call = Callable[[], Awaitable[Any]]


@asynccontextmanager
async def this_service(port: int) -> AsyncIterator[Call]:
    from service.observability.metrics import Metrics
    from service.redis_client.factory import client_factory
    from service.redis_client.monitor import StoreMonitor
    from service.sessions.scripts import SCRIPTS

    factory = client_factory(f"redis://127.0.0.1:{port}", 2, StoreMonitor(Metrics()), SCRIPTS)
    client, fields = factory.new_client(), tuple(field.encode() for field in FIELDS)
    yield lambda: client.read_hash(KEY, fields)
    await client.aclose()
    await factory.aclose()


@asynccontextmanager
async def redis_py(port: int) -> AsyncIterator[Call]:
    from redis.asyncio import Redis

    async with Redis(port=port, max_connections=CALLERS) as client:
        yield lambda: client.hmget(KEY, FIELDS)


@asynccontextmanager
async def batched_redis_py(port: int) -> AsyncIterator[Call]:
    """Sends the calls of one turn of the event loop in one pipeline."""
    from redis.asyncio import Redis

    loop, waiting, tasks = asyncio.get_running_loop(), list[asyncio.Future[Any]](), set[asyncio.Task[None]]()

    async def flush(batch: list[asyncio.Future[Any]]) -> None:
        pipeline = client.pipeline(transaction=False)
        for _ in batch:
            pipeline.hmget(KEY, FIELDS)
        for future, reply in zip(batch, await pipeline.execute(), strict=True):
            future.set_result(reply)

    def start_flush() -> None:
        tasks.add(task := loop.create_task(flush(waiting.copy())))
        task.add_done_callback(tasks.discard)
        waiting.clear()

    def call() -> asyncio.Future[Any]:
        if not waiting:
            loop.call_soon(start_flush)
        waiting.append(loop.create_future())
        return waiting[-1]

    async with Redis(port=port, max_connections=CALLERS) as client:
        yield call


@asynccontextmanager
async def glide(port: int) -> AsyncIterator[Call]:
    from glide import GlideClient, GlideClientConfiguration, NodeAddress

    client = await GlideClient.create(GlideClientConfiguration([NodeAddress("127.0.0.1", port)]))
    fields = list(FIELDS)
    yield lambda: client.hmget(KEY, fields)
    await client.close()


@asynccontextmanager
async def coredis(port: int) -> AsyncIterator[Call]:
    from coredis import Redis

    async with Redis(host="127.0.0.1", port=port) as client:
        yield lambda: client.hmget(KEY, FIELDS)


CLIENTS: dict[str, Callable[[int], AbstractAsyncContextManager[Call]]] = {
    "this-service": this_service,
    "redis-py": redis_py,
    "batched-redis-py": batched_redis_py,
    "glide": glide,
    "coredis": coredis,
}


async def measure(name: str, port: int, seconds: float) -> dict[str, float]:
    async with CLIENTS[name](port) as call:
        await run(call, WARM_UP_SECONDS)
        before = cpu_seconds()
        calls = await run(call, seconds)
        return {"calls": calls, "cpu_seconds": cpu_seconds() - before}


async def run(call: Call, seconds: float) -> int:
    """Call from all callers for this time. Returns the number of calls."""
    loop = asyncio.get_running_loop()
    end, calls = loop.time() + seconds, 0

    async def repeat() -> None:
        nonlocal calls
        while loop.time() < end:
            await call()
            calls += 1

    await asyncio.gather(*(repeat() for _ in range(CALLERS)))
    return calls


def cpu_seconds() -> float:
    """The CPU time of all threads of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    name, port, seconds = sys.argv[1:]
    sys.stdout.write(json.dumps(uvloop.run(measure(name, int(port), float(seconds)))))


if __name__ == "__main__":
    main()
