"""The service as a process: started, announced, drained and stopped."""

import asyncio
import logging
import os
import signal
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from aiohttp import web

from service.app import Clients, create_app
from service.app_keys import HEALTH
from service.connect import client_of_the_settings, like_of
from service.dial import Dialer
from service.embedded import embedded_server
from service.event_log import EventLog
from service.later import Later
from service.metrics import Metrics
from service.pipeline import Pipeline
from service.redis_cli import redis_cli
from service.runner import Runner, as_it_is
from service.settings import CannotStart, Settings, unknown_variables
from service.store_watch import StoreWatch
from service.watch import Watch

if TYPE_CHECKING:
    from service.tracing import Tracing

_log = logging.getLogger(__name__)


async def serve(settings: Settings, event_log: EventLog) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what is in flight. Raises CannotStart."""
    for name in unknown_variables(os.environ):
        _log.warning("%s is not a setting of this service", name)
    stopped = _stop_signal()
    async with AsyncExitStack() as stack:
        url = await _redis_url(settings, stack)
        runner = await _runner(settings, url, event_log, stack)
        stack.push_async_callback(runner.cleanup)
        await runner.setup()
        address = await _listen(runner, settings)
        sys.stdout.write(_banner(address, url, settings))
        sys.stdout.flush()
        await stopped.wait()
        runner.app[HEALTH].draining = True
        _log.info("stopping: requests in flight are finished first")
        await asyncio.sleep(settings.session_drain_pause_seconds)
    _log.info("stopped")


def _stop_signal() -> asyncio.Event:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    return stopped


async def _redis_url(settings: Settings, stack: AsyncExitStack) -> str:
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    return await stack.enter_async_context(embedded_server(settings.session_data_dir.expanduser().absolute()))


def _clients(url: str, timeout_seconds: float, metrics: Metrics) -> Clients:
    client = client_of_the_settings(url, timeout_seconds)
    dial = Dialer(like_of(client))
    watch = StoreWatch(metrics)
    lane, wide = Pipeline(dial, timeout_seconds, watch), Pipeline(dial, timeout_seconds, watch)
    return Clients(lane, wide, side=client, watch=watch)


async def _runner(settings: Settings, url: str, event_log: EventLog, stack: AsyncExitStack) -> Runner:
    metrics = Metrics()
    clients = _clients(url, settings.session_store_timeout_seconds, metrics)
    around = as_it_is
    if settings.session_tracing:
        tracing = _tracing()
        stack.push_async_callback(tracing.aclose)
        clients = clients._replace(lane=tracing.on(clients.lane), wide=tracing.on(clients.wide))
        around = tracing.over
    return Runner(
        create_app(settings, clients, Watch(metrics, event_log, Later())),
        settings.session_error_format,
        around,
        shutdown_timeout=max(settings.session_drain_timeout_seconds, 0.001),  # to aiohttp, 0 is no limit
    )


def _tracing() -> "Tracing":
    try:
        from service.tracing import otlp_tracing
    except ImportError:
        raise CannotStart(
            "SESSION_TRACING: needs OpenTelemetry, which is an extra: install session-service[tracing]"
        ) from None
    return otlp_tracing()


async def _listen(runner: Runner, settings: Settings) -> str:
    site = web.TCPSite(runner, settings.host, settings.port)
    try:
        await site.start()
    except OSError as error:
        raise CannotStart(f"HOST={settings.host} PORT={settings.port}: {error.strerror or error}") from None
    host, port, *_ = runner.addresses[0]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _banner(address: str, url: str, settings: Settings) -> str:
    data = "the Redis of REDIS_URL" if settings.redis_url else f"{settings.session_data_dir} (an embedded Valkey)"
    return (
        f"Session service listening on {address}\n"
        f"  documentation  {address}/docs\n"
        f"  data           {data}\n"
        f"  look inside    {redis_cli(url)}\n"
    )
