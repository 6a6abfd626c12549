"""The service with one redis-py call per request, without pipelining."""

import asyncio
import os
import sys

import uvloop
from aiohttp import web

from service.api.access_log import AccessLog
from service.api.server.server import Runner
from service.app import create_app
from service.observability.event_log import open_event_log
from service.observability.metrics import Metrics
from service.redis_client.factory import RedisClients, redis_py_client
from service.redis_client.monitor import StoreMonitor
from service.settings import Settings
from tests.unpipelined_client import UnpipelinedClient


async def serve() -> None:
    client = redis_py_client(os.environ["REDIS_URL"], 2)
    metrics = Metrics()
    watch = StoreMonitor(metrics)
    calls = UnpipelinedClient(client, 2, watch)
    app = create_app(
        Settings(),
        RedisClients(calls, calls, calls, calls, watch, calls.aclose),
        AccessLog(metrics, open_event_log(sys.stderr, "json", "info")),
    )
    runner = Runner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(os.environ["PORT"])).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())
