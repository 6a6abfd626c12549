"""The service with a round trip of redis-py's for each request: what auto-pipelining is held against."""

import asyncio
import os

import uvloop
from aiohttp import web

from service.app import Clients, create_app
from service.connect import client_for
from service.metrics import Metrics
from service.runner import Runner
from service.settings import Settings
from service.single_calls import SingleCalls


async def serve() -> None:
    client = client_for(os.environ["REDIS_URL"], 2)
    calls = SingleCalls(client, 2)
    app = create_app(Settings(), Clients(lane=calls, wide=calls, side=client), Metrics())
    runner = Runner(app, "schema", access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(os.environ["PORT"])).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())
