"""Serve with several worker processes on one port, supervised by gunicorn."""

import asyncio
import logging
import math
import mmap
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import uvloop
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.workers.base import Worker

from service.errors import StartupError
from service.observability.event_log import open_event_log
from service.observability.log import configure_logging_without_thread
from service.observability.metrics import Metrics, remove_worker_metrics, share_metrics, shared_metrics_parent
from service.process.embedded_server import data_dir_of, embedded_server
from service.process.listeners import open_listeners, url_of, without_queue
from service.process.runtime import DIE_WITH_PARENT
from service.process.serve import check_startup, print_banner, serve_on, stop_event, warn_of_unknown_variables
from service.settings import Settings

HEARTBEAT_SECONDS = 1
TIMEOUT_SECONDS = 15
"""gunicorn kills a worker that sends no heartbeat for this long."""

STANDSTILL_SECONDS = 5
"""A longer time between two checks of the heartbeats means that the machine stood still, and the workers with it."""

RESTART_INTERVAL_SECONDS = 1
"""The minimum time between two starts of the same worker, so that a crash loop does not use a whole core."""

SHUTDOWN_SECONDS = 15
"""The time that a worker has after its last request, for example to export traces."""

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

_log = logging.getLogger(__name__)


def serve_with_workers(settings: Settings, count: int) -> int:
    """Serve with `count` processes until SIGTERM or Ctrl-C, then drain. Returns the exit code. Raises StartupError."""
    configure_logging_without_thread(settings.session_log_format, settings.session_log_level, sys.stderr)
    if settings.redis_url is None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve_with_embedded_server(settings, count))
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)  # until gunicorn has set its handlers
    warn_of_unknown_variables()
    with asyncio.Runner() as runner:  # not uvloop: processes forked after its use crash when they exit
        runner.run(check_startup(settings))
        listeners = runner.run(open_listeners(settings, count))
    GunicornApplication(settings, count, [listener.detach() for listener in listeners], _metrics_folder()).run()
    return 0


async def _serve_with_embedded_server(settings: Settings, count: int) -> int:
    """Run gunicorn in a child process, because gunicorn reaps every child of its own process."""
    stopped = stop_event()
    async with embedded_server(data_dir_of(settings)) as url:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "service", "serve", "--workers", str(count)),
            env={**os.environ, "REDIS_URL": url},
            start_new_session=True,  # Ctrl-C reaches only this process
            preexec_fn=DIE_WITH_PARENT,
        )
        exited, signalled = asyncio.create_task(process.wait()), asyncio.create_task(stopped.wait())
        await asyncio.wait([exited, signalled], return_when=asyncio.FIRST_COMPLETED)
        if not exited.done():
            process.terminate()
        signalled.cancel()
        code = await exited
    if stopped.is_set() and code == -signal.SIGTERM:  # it was stopped before it could set its handlers
        return 0
    return code if code >= 0 else 128 - code


class GunicornApplication(BaseApplication):  # type: ignore[misc]
    """The options and hooks of gunicorn. A restarted worker keeps its number and its listening sockets."""

    def __init__(self, settings: Settings, count: int, listeners: list[int], metrics: Path) -> None:
        self.settings = settings
        self.metrics = metrics
        self._count = count
        self._listeners = listeners
        self._started_at: dict[int, float] = {}
        self._failed: set[int] = set()
        self._exit_code = 0
        super().__init__()

    def load_config(self) -> None:
        drain_seconds = self.settings.session_drain_pause_seconds + 2 * self.settings.session_drain_timeout_seconds
        options = {
            "bind": [f"fd://{listener}" for listener in self._listeners],
            "workers": self._count,
            "worker_class": GunicornWorker,
            "worker_tmp_dir": str(self.metrics),
            "umask": _umask(),
            "timeout": TIMEOUT_SECONDS,
            "graceful_timeout": math.ceil(drain_seconds + SHUTDOWN_SECONDS),
            "control_socket_disable": True,
            "logger_class": GunicornLogger,
            "loglevel": self.settings.session_log_level,
            "when_ready": self._when_ready,
            "pre_fork": self._before_fork,
            "post_fork": self._after_fork,
            "child_exit": self._after_exit,
            "on_exit": self._before_end,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def run(self) -> None:
        GunicornArbiter(self).run()

    def load(self) -> None:
        """Load nothing: each worker creates its application in its own event loop."""

    def _when_ready(self, arbiter: Arbiter) -> None:
        print_banner(url_of(arbiter.LISTENERS[0].getsockname()), self.settings, self._count)

    def _before_fork(self, arbiter: Arbiter, worker: "GunicornWorker") -> None:
        used = {other.number for other in arbiter.WORKERS.values()}
        worker.number = next(number for number in range(1, self._count + 1) if number not in used)
        worker.sockets = arbiter.LISTENERS[worker.number - 1 :: self._count]
        if worker.number in self._failed:  # until it accepts connections, the other workers get them
            for listener in worker.sockets:
                listener.sock = without_queue(listener.sock)
            self._failed.remove(worker.number)
        next_start = self._started_at.get(worker.number, -math.inf) + RESTART_INTERVAL_SECONDS
        time.sleep(max(0, next_start - time.monotonic()))
        self._started_at[worker.number] = time.monotonic()
        worker.notify()

    def _after_fork(self, arbiter: Arbiter, worker: "GunicornWorker") -> None:
        worker.init_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # SIGABRT ends a hung worker, whose memory contains secrets
        for listener in arbiter.LISTENERS:
            if listener not in worker.sockets:
                listener.close()

    def _after_exit(self, arbiter: Arbiter, worker: "GunicornWorker") -> None:
        remove_worker_metrics(self.metrics, worker.number, worker.pid)
        if worker.has_failed[0]:
            self._failed.add(worker.number)
        if arbiter.LISTENERS:
            _log.error("worker %d (pid %d) exited and is restarted", worker.number, worker.pid)
        elif worker.is_serving[0]:
            _log.error("worker %d (pid %d) exited before it was drained", worker.number, worker.pid)
            self._exit_code = 1

    def _before_end(self, arbiter: Arbiter) -> None:
        shutil.rmtree(self.metrics, ignore_errors=True)
        sys.exit(1 if arbiter.WORKERS else self._exit_code)


class GunicornArbiter(Arbiter):  # type: ignore[misc]
    """The parent process. It keeps the other workers if it cannot start one."""

    _last_check = -math.inf

    def init_signals(self) -> None:
        super().init_signals()
        for number in self.SIGNALS:  # no reload, no upgrade, no change in the number of workers
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.signal(signal.SIGTERM, None))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)

    def spawn_worker(self) -> None:
        """Start a worker. Signals wait meanwhile, because the worker would lose them before it sets its handlers."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        try:
            super().spawn_worker()
        except (OSError, RuntimeError) as error:
            if os.getpid() != self.pid:  # in the worker: the code of the parent must not run
                os._exit(1)
            _log.error("a worker cannot be started and is tried again: %s", error)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)

    def murder_workers(self) -> None:
        """Kill the workers without heartbeats. After a standstill, each worker has the whole timeout again."""
        last_check, self._last_check = self._last_check, time.monotonic()
        if self._last_check - last_check > STANDSTILL_SECONDS:
            for worker in self.WORKERS.values():
                worker.notify()
        super().murder_workers()


class GunicornWorker(Worker):  # type: ignore[misc]
    """A forked process that serves on its own event loop."""

    app: GunicornApplication
    number: int

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.is_serving, self.has_failed = mmap.mmap(-1, 1), mmap.mmap(-1, 1)  # shared with the process of gunicorn

    def init_signals(self) -> None:
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    def run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
            self.is_serving[0] = 0
        except Exception as error:
            self.has_failed[0] = 1
            _log.error("worker %d failed: %s", self.number, error, exc_info=not isinstance(error, StartupError))
            sys.exit(1)

    async def _serve(self) -> None:
        settings, stopped = self.app.settings, stop_event()
        self.is_serving[0] = 1
        heartbeats = asyncio.create_task(self._send_heartbeats(stopped))
        event_log = open_event_log(sys.stderr, settings.session_log_format, settings.session_log_level, self.number)
        share_metrics(self.app.metrics, self.number)
        listeners = [listener.sock for listener in self.sockets]
        await serve_on(listeners, settings, Metrics(self.app.metrics), event_log, stopped, self._is_orphaned)
        heartbeats.cancel()

    def _is_orphaned(self) -> bool:
        """Return whether gunicorn was killed."""
        return bool(os.getppid() != self.ppid)

    async def _send_heartbeats(self, stopped: asyncio.Event) -> None:
        while True:
            self.notify()
            if self._is_orphaned():
                stopped.set()
            await asyncio.sleep(HEARTBEAT_SECONDS)


class GunicornLogger(Logger):  # type: ignore[misc]
    """Writes gunicorn's messages to the log of the service, routine messages only at level debug."""

    def setup(self, cfg: Any) -> None:
        self.error_log = logging.getLogger("gunicorn")

    info = Logger.debug


def _umask() -> int:
    """Return the umask of this process. It can only be read by setting it."""
    os.umask(umask := os.umask(0o077))
    return umask


def _metrics_folder() -> Path:
    try:
        return Path(mkdtemp(prefix="session-service-", dir=shared_metrics_parent()))
    except OSError as error:
        raise StartupError(f"TMPDIR: workers need a folder for their metrics: {error.strerror or error}") from None
