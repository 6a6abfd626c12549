"""The baseline of all measurements: an aiohttp handler that returns 440 fixed bytes."""

import asyncio
import os

import uvloop
from aiohttp import web

_BODY = b"x" * 440


async def fixed(_: web.Request) -> web.Response:
    return web.Response(body=_BODY, content_type="application/json")


async def serve() -> None:
    app = web.Application()
    app.router.add_get("/fixed", fixed)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(os.environ["PORT"])).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())
