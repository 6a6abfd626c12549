"""Several workers on one machine: started, started again where they die, and drained together.

The process that starts them serves nothing itself. It holds the port, runs the embedded server if there is one, and
never forks a process that has begun to work: each worker is a fresh `python -m service.process.worker`.
"""

import asyncio
import logging
import os
import signal
import socket
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from service.errors import StartupError
from service.observability.metrics import remove_worker_metrics, shared_metrics_parent
from service.process import pulse
from service.process.banner import announce
from service.process.child import DIE_WITH_PARENT
from service.process.listening import Listening, listening
from service.process.serve import redis_url, stop_signal, warn_of_unknown_variables
from service.process.worker import SERVING, Assignment
from service.settings import Settings

START_SECONDS = 60
"""For how long a worker may take to serve."""

STEADY_SECONDS = 60
"""A worker that has served for so long is in no crash loop, however it ends."""

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 30

PATIENCE_SECONDS = 1
"""For how long connections may wait for a worker that is to come back; for longer, others are to have them."""

_GRACE_SECONDS = 15
"""What a worker may need to end beside what it is given for requests in flight: to send its last traces, say."""

_DRAINED = (0, -signal.SIGTERM)
"""How a worker ends that was told to; the second is one that had not begun to serve."""

_log = logging.getLogger(__name__)


async def serve_by_workers(settings: Settings, number: int) -> int:
    """Serve by so many workers until SIGTERM or Ctrl-C, then drain them all; the exit code. Raises StartupError."""
    warn_of_unknown_variables()
    stopped = stop_signal()
    async with AsyncExitStack() as stack:
        url = await redis_url(settings, stack)
        port = await listening(settings)
        stack.callback(port.close)
        folder = Path(stack.enter_context(_folder()))
        workers = [Worker(order, url, port, folder) for order in range(1, number + 1)]
        await _start(workers)
        keeping = [asyncio.create_task(worker.keep_running()) for worker in workers]
        announce(port.url, url, settings, number)
        await stopped.wait()
        _log.info("stopping: the workers finish requests in flight first")
        await _end(keeping)
        port.close()
        drained = await asyncio.gather(*(worker.drain(_drain_seconds(settings)) for worker in workers))
    _log.info("stopped")
    return 0 if all(drained) else 1


def pause_seconds(deaths: int) -> float:
    """How long a worker that has died so many times in a row is left alone: a crash loop is not to burn the CPU."""
    return min(FIRST_PAUSE_SECONDS * 2.0 ** min(deaths - 1, 16), LONGEST_PAUSE_SECONDS)


class Worker:
    """One of the workers, by its number: one process after the other."""

    def __init__(self, number: int, url: str, port: Listening, folder: Path) -> None:
        self._number = number
        self._url = url
        self._port = port
        self._folder = folder
        self._listeners: list[socket.socket] = []
        self._process: Process | None = None
        self._deaths = 0

    async def start(self) -> None:
        """Start it and wait until it serves. Raises StartupError with what it says where it does not."""
        self._process = await self._spawn()
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._serving(self._process)
        except TimeoutError:
            await self._kill_process()
            raise StartupError(f"Worker {self._number} did not serve in time: within {START_SECONDS} s.") from None

    async def keep_running(self) -> None:
        """Start it again whenever it ends."""
        while True:
            await self._death()
            pause = pause_seconds(self._deaths)
            if pause > PATIENCE_SECONDS:
                self._stop_listening()
            await asyncio.sleep(pause)
            try:
                await self.start()
            except (StartupError, OSError) as error:
                _log.error("worker %d could not be started: %s", self._number, error)

    async def drain(self, seconds: float) -> bool:
        """Have it finish what is in flight and end; whether it did. One that takes longer than this is killed."""
        self._stop_listening()
        if self._process is None or self._process.returncode is not None:
            return True
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            code = await asyncio.wait_for(self._process.wait(), seconds)
        except TimeoutError:
            code = await self._kill_process()
        if code not in _DRAINED:
            _log.error("worker %d ended with %d before it had drained", self._number, code)
        return code in _DRAINED

    async def kill(self) -> None:
        self._stop_listening()
        if self._process is not None:
            await self._kill_process()

    async def _serving(self, process: Process) -> None:
        assert process.stdout is not None
        said = await process.stdout.readline()
        if said.decode() != SERVING:
            said += await process.stdout.read()
            code = await process.wait()
            raise StartupError(said.decode() or f"Worker {self._number} ended with {code} before it served.")

    async def _kill_process(self) -> int:
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.kill()
        return await self._process.wait()

    async def _spawn(self) -> Process:
        """The process has the listening sockets too: what waits there is not lost with it."""
        self._listeners = self._listeners or self._port.for_a_worker()
        descriptors = tuple(listener.fileno() for listener in self._listeners)
        return await asyncio.create_subprocess_exec(
            *Assignment(self._number, self._folder, descriptors).command,
            env={**os.environ, "REDIS_URL": self._url},
            stdin=DEVNULL,
            stdout=PIPE,
            start_new_session=True,  # Ctrl-C is their parent's alone: it tells them
            pass_fds=descriptors,
            preexec_fn=DIE_WITH_PARENT,
        )

    async def _death(self) -> None:
        assert self._process is not None
        now = asyncio.get_running_loop().time
        began = now()
        how = await self._end(self._process)
        remove_worker_metrics(self._folder, self._number, self._process.pid)
        self._deaths = 1 if now() - began > STEADY_SECONDS else self._deaths + 1
        _log.error("worker %d %s; it is started again", self._number, how)

    async def _end(self, process: Process) -> str:
        """How it ended, once it has; one that does not answer is made to."""
        assert process.stdout is not None
        if not await pulse.fell_silent(process.stdout):
            return f"ended with {await process.wait()}"
        await self._kill_process()
        return f"did not answer for {pulse.MOST_SILENT_LOOKS} s and was killed"

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners = []


async def _start(workers: Sequence[Worker]) -> None:
    """Start them all, or none: where one cannot, the others go."""
    failures = await asyncio.gather(*(worker.start() for worker in workers), return_exceptions=True)
    for failure in filter(None, failures):
        await asyncio.gather(*(worker.kill() for worker in workers))
        raise failure


def _drain_seconds(settings: Settings) -> float:
    """aiohttp may wait twice: for what is in flight to end, and for what it has then cut off."""
    return settings.session_drain_pause_seconds + 2 * settings.session_drain_timeout_seconds + _GRACE_SECONDS


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def _folder() -> "TemporaryDirectory[str]":
    try:
        return TemporaryDirectory(prefix="session-service-", dir=shared_metrics_parent())
    except OSError as error:
        raise StartupError(f"TMPDIR: workers need a folder for their metrics: {error.strerror or error}") from None
