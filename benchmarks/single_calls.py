"""The service with a round trip of redis-py's for each request: what auto-pipelining is held against."""

import asyncio
import os
import sys

import uvloop
from aiohttp import web

from service.app import create_app
from service.http.runner import Runner
from service.http.watch import Watch
from service.lanes.clients import Clients
from service.lanes.connect import client_for
from service.lanes.store_watch import StoreWatch
from service.settings import Settings
from service.telemetry.event_log import event_log_on
from service.telemetry.later import Later
from service.telemetry.metrics import Metrics
from tests.single_calls import SingleCalls


async def serve() -> None:
    client = client_for(os.environ["REDIS_URL"], 2)
    metrics = Metrics()
    watch = StoreWatch(metrics)
    calls = SingleCalls(client, 2, watch)
    app = create_app(
        Settings(),
        Clients(calls, calls, calls, calls, watch, calls.aclose),
        Watch(metrics, event_log_on(sys.stderr, "json", "info"), Later()),
    )
    runner = Runner(app, "schema")
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(os.environ["PORT"])).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())
