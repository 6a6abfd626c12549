"""`python -m service.process.worker`: one of several workers, which `service/process/workers.py` alone starts."""

import asyncio
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import uvloop

from service.errors import StartupError
from service.observability.event_log import open_event_log
from service.observability.metrics import Metrics, share_metrics
from service.process import pulse
from service.process.serve import serve_as_worker
from service.settings import load_settings

SERVING = "serving\n"
"""What it says on stdout once it serves, before it beats there; where it cannot, it says why."""


class Assignment(NamedTuple):
    """What a worker is told beside the settings: its number, where metrics are shared, its listening sockets."""

    number: int
    metrics: Path
    descriptors: tuple[int, ...]

    @property
    def command(self) -> list[str]:
        return [
            sys.executable,
            "-m",
            "service.process.worker",
            str(self.number),
            str(self.metrics),
            *map(str, self.descriptors),
        ]

    @classmethod
    def read(cls, words: Sequence[str]) -> Self:
        number, metrics, *descriptors = words
        return cls(int(number), Path(metrics), tuple(map(int, descriptors)))


def main() -> None:
    assignment = Assignment.read(sys.argv[1:])
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_work(assignment))
    except StartupError as error:
        _say(str(error))
        sys.exit(1)


async def _work(assignment: Assignment) -> None:
    settings = load_settings()
    event_log = open_event_log(sys.stderr, settings.session_log_format, settings.session_log_level, assignment.number)
    share_metrics(assignment.metrics, assignment.number)
    listeners = [socket.socket(fileno=descriptor) for descriptor in assignment.descriptors]
    await serve_as_worker(settings, Metrics(assignment.metrics), event_log, listeners, _serving)


def _serving() -> None:
    _say(SERVING)
    pulse.beat(sys.stdout.fileno())


def _say(words: str) -> None:
    sys.stdout.write(words)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
