"""Serve as one process: start, print the banner, drain on SIGTERM or Ctrl-C, stop."""

import asyncio
import logging
import os
import signal
import socket
import sys
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
from service.process.embedded_server import data_dir_of, embedded_server, url_of_server_in
from service.process.listeners import BACKLOG, cannot_listen, url_of
from service.process.runtime import raise_open_file_limit, tune_garbage_collection
from service.redis_client.factory import connect_clients
from service.sessions.scripts import SCRIPTS
from service.settings import Settings, unknown_variables
from service.settings.redis_url import redis_cli
from service.shared_secret import SharedSecret

if TYPE_CHECKING:
    from service.api.tracing import Tracing

_log = logging.getLogger(__name__)


async def serve(settings: Settings, event_log: EventLog) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish the requests in flight. Raises StartupError."""
    warn_of_unknown_variables()
    stopped = stop_event()
    async with AsyncExitStack() as stack:
        if settings.redis_url is None:
            await stack.enter_async_context(embedded_server(data_dir_of(settings)))
        runner = await _start_runner(settings, Metrics(), event_log, stack)
        address = await _listen(runner, settings)
        print_banner(address, settings)
        await _serve_until(stopped, runner)
        await asyncio.sleep(settings.session_drain_pause_seconds)
    _log.info("stopped")


async def serve_on(
    listeners: Sequence[socket.socket],
    settings: Settings,
    metrics: Metrics,
    event_log: EventLog,
    stopped: asyncio.Event,
    is_orphaned: Callable[[], bool],
) -> None:
    """Serve on open sockets until `stopped` is set, then finish the requests in flight. Raises StartupError.

    An orphaned process skips the drain pause, so that the service can be started again on its port.
    """
    async with AsyncExitStack() as stack:
        runner = await _start_runner(settings, metrics, event_log, stack)
        for listener in listeners:
            await web.SockSite(runner, listener, backlog=BACKLOG).start()
        await _serve_until(stopped, runner)
        if not is_orphaned():
            await asyncio.sleep(settings.session_drain_pause_seconds)
    _log.info("stopped")


async def check_startup(settings: Settings) -> None:
    """Create the application as a worker does, and discard it. Raises StartupError."""
    async with AsyncExitStack() as stack:
        _create_app(settings, Metrics(), EventLog(SharedSecret()), stack)


def print_banner(address: str, settings: Settings, workers: int = 1) -> None:
    """Print the address of the service and the place of its data to stdout."""
    url = _redis_url(settings)
    data = "the Redis of REDIS_URL"
    if url.startswith("unix:") and url == url_of_server_in(data_dir_of(settings)):
        data = f"{data_dir_of(settings)} (an embedded Valkey)"
    worker_line = f"  workers        {workers}\n" if workers > 1 else ""
    sys.stdout.write(
        f"Session service listening on {address}\n"
        f"  documentation  {address}/docs\n"
        f"{worker_line}"
        f"  data           {data}\n"
        f"  look inside    {redis_cli(url)}\n"
    )
    sys.stdout.flush()


def warn_of_unknown_variables() -> None:
    for name in unknown_variables(os.environ):
        _log.warning("%s is not a setting of this service", name)


def stop_event() -> asyncio.Event:
    """Return an event that SIGTERM and Ctrl-C set."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    return stopped


def _redis_url(settings: Settings) -> str:
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    return url_of_server_in(data_dir_of(settings))


async def _serve_until(stopped: asyncio.Event, runner: Runner) -> None:
    """Return when the drain pause starts. The cleanup of the runner finishes the requests in flight."""
    await stopped.wait()
    runner.app[HEALTH].is_draining = True
    _log.info("stopping: requests in flight are finished first")


async def _start_runner(settings: Settings, metrics: Metrics, event_log: EventLog, stack: AsyncExitStack) -> Runner:
    """Return a runner that is set up. The stack cleans it up."""
    max_connections = raise_open_file_limit(settings.session_max_connections)
    settings = settings.model_copy(update={"session_max_connections": max_connections})
    runner = Runner(
        _create_app(settings, metrics, event_log, stack),
        shutdown_timeout=max(settings.session_drain_timeout_seconds, 0.001),  # aiohttp takes 0 as no limit
    )
    stack.push_async_callback(runner.cleanup)
    await runner.setup()
    tune_garbage_collection()
    return runner


def _create_app(settings: Settings, metrics: Metrics, event_log: EventLog, stack: AsyncExitStack) -> web.Application:
    clients = connect_clients(_redis_url(settings), settings, metrics, SCRIPTS)
    if event_log.writer is not None:
        event_log.writer.on_dropped = metrics.log_lines_dropped.labels("stderr").inc
    tracing = None
    if settings.session_tracing:
        tracing = _tracing(event_log.secret)
        stack.push_async_callback(tracing.aclose)
        main, no_wait, bulk = (tracing.trace(client) for client in (clients.main, clients.no_wait, clients.bulk))
        clients = clients._replace(main=main, no_wait=no_wait, bulk=bulk)
    audit = stack.enter_context(open_audit_log(settings, event_log, metrics, Actor("service")))
    access_log = AccessLog(metrics, event_log)
    return create_app(settings, clients, access_log, audit, None if tracing is None else tracing.middleware)


def _tracing(secret: SharedSecret) -> "Tracing":
    try:
        from service.api.tracing import Tracing, otlp_provider

        provider = otlp_provider()
    except ImportError:
        raise StartupError(
            "SESSION_TRACING: needs OpenTelemetry, which is an extra: install session-service[tracing]"
        ) from None
    except Exception as error:  # for example for an unknown propagator
        detail = " ".join(str(error).split())
        raise StartupError(f"SESSION_TRACING: OpenTelemetry rejects the value of an OTEL_ variable: {detail}") from None
    return Tracing(provider, secret)


async def _listen(runner: Runner, settings: Settings) -> str:
    site = web.TCPSite(runner, settings.host, settings.port, backlog=BACKLOG)
    try:
        await site.start()
    except OSError as error:
        raise cannot_listen(settings, error) from None
    return url_of(runner.addresses[0])
