"""The service with one redis-py round trip per request instead of the pipelining client."""

import asyncio
import os
import sys
from typing import Any

import uvloop
from aiohttp import web

from service.api.access_log import AccessLog
from service.api.server.server import Runner
from service.app import create_app
from service.observability.event_log import open_event_log
from service.observability.metrics import Metrics
from service.redis_client.factory import RedisClients, redis_py_client
from service.redis_client.monitor import StoreMonitor
from service.redis_client.subscriber import Subscriber
from service.settings import Settings
from tests.unpipelined_client import UnpipelinedClient


def _subscriber() -> Subscriber:
    """Return a subscriber that no request uses."""

    async def unused(_: object) -> Any: ...

    return Subscriber(unused, unused, 2)


async def serve() -> None:
    metrics = Metrics()
    monitor = StoreMonitor(metrics)
    client = UnpipelinedClient(redis_py_client(os.environ["REDIS_URL"], 2), 2, monitor)
    app = create_app(
        Settings(),
        RedisClients(client, client, client, client, _subscriber(), monitor, client.aclose),
        AccessLog(metrics, open_event_log(sys.stderr, "json", "info")),
    )
    runner = Runner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(os.environ["PORT"])).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())
