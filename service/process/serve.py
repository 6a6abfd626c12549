"""The service as a process: started, announced, drained and stopped."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from aiohttp import web

from service.api.access_log import AccessLog
from service.api.app_keys import HEALTH
from service.api.server.server import Runner
from service.app import create_app
from service.errors import StartupError
from service.observability.audit import Actor, open_audit_log
from service.observability.event_log import EventLog
from service.observability.metrics import Metrics
from service.process.banner import announce
from service.process.embedded_server import embedded_server
from service.process.garbage import spare_what_stays
from service.process.listening import cannot_listen, url_of
from service.process.open_files import room_for
from service.redis_client.factory import connect_clients
from service.sessions.scripts import SCRIPTS
from service.settings import Settings, unknown_variables
from service.shared_secret import SharedSecret

if TYPE_CHECKING:
    from service.api.tracing import Tracing

_log = logging.getLogger(__name__)


async def serve(settings: Settings, event_log: EventLog) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what is in flight. Raises StartupError."""
    warn_of_unknown_variables()
    stopped = stop_signal()
    async with AsyncExitStack() as stack:
        url = await redis_url(settings, stack)
        runner = await _runner(settings, url, Metrics(), event_log, stack)
        address = await _listen(runner, settings)
        announce(address, url, settings)
        await _serve_until(stopped, runner, settings)
    _log.info("stopped")


async def serve_as_worker(
    settings: Settings,
    metrics: Metrics,
    event_log: EventLog,
    listeners: Sequence[socket.socket],
    ready: Callable[[], None],
) -> None:
    """The same on sockets that are there already, and saying nothing: `ready` is called once it serves."""
    stopped = stop_signal()
    async with AsyncExitStack() as stack:
        runner = await _runner(settings, await redis_url(settings, stack), metrics, event_log, stack)
        for listener in listeners:
            await web.SockSite(runner, listener).start()
        ready()
        await _serve_until(stopped, runner, settings)
    _log.info("stopped")


def warn_of_unknown_variables() -> None:
    for name in unknown_variables(os.environ):
        _log.warning("%s is not a setting of this service", name)


def stop_signal() -> asyncio.Event:
    """Set by SIGTERM and by Ctrl-C, each as often as it likes."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    return stopped


async def redis_url(settings: Settings, stack: AsyncExitStack) -> str:
    """The URL that was set, or that of an embedded server, which runs until the stack is left."""
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    return await stack.enter_async_context(embedded_server(settings.session_data_dir.expanduser().absolute()))


async def _serve_until(stopped: asyncio.Event, runner: Runner, settings: Settings) -> None:
    """Readiness turns first. What is in flight is finished when the runner is cleaned up."""
    await stopped.wait()
    runner.app[HEALTH].draining = True
    _log.info("stopping: requests in flight are finished first")
    await asyncio.sleep(settings.session_drain_pause_seconds)


async def _runner(settings: Settings, url: str, metrics: Metrics, event_log: EventLog, stack: AsyncExitStack) -> Runner:
    """A runner that is set up, and is cleaned up when the stack is left."""
    settings = settings.model_copy(update={"session_max_connections": room_for(settings.session_max_connections)})
    clients = connect_clients(url, settings, metrics, SCRIPTS)
    if event_log.writer is not None:
        event_log.writer.on_dropped = metrics.log_lines_dropped.labels("stderr").inc
    tracing = None
    if settings.session_tracing:
        tracing = _tracing(event_log.secret)
        stack.push_async_callback(tracing.aclose)
        main, no_wait, bulk = (tracing.trace(client) for client in (clients.main, clients.no_wait, clients.bulk))
        clients = clients._replace(main=main, no_wait=no_wait, bulk=bulk)
    audit = stack.enter_context(open_audit_log(settings, event_log, metrics, Actor("service")))
    runner = Runner(
        create_app(
            settings, clients, AccessLog(metrics, event_log), audit, None if tracing is None else tracing.middleware
        ),
        shutdown_timeout=max(settings.session_drain_timeout_seconds, 0.001),  # to aiohttp, 0 is no limit
    )
    stack.push_async_callback(runner.cleanup)
    await runner.setup()
    spare_what_stays()
    return runner


def _tracing(secret: SharedSecret) -> "Tracing":
    try:
        from service.api.tracing import Tracing
        from service.observability.tracing import otlp_provider
    except ImportError:
        raise StartupError(
            "SESSION_TRACING: needs OpenTelemetry, which is an extra: install session-service[tracing]"
        ) from None
    return Tracing(otlp_provider(), secret)


async def _listen(runner: Runner, settings: Settings) -> str:
    site = web.TCPSite(runner, settings.host, settings.port)
    try:
        await site.start()
    except OSError as error:
        raise cannot_listen(settings, error) from None
    return url_of(runner.addresses[0])
