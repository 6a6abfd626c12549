"""Runs commands in this process, and reads their output."""

import asyncio
import io
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from rich.console import Console

from service.cli import arguments, commands
from service.cli.commands import Terminal
from service.observability.event_log import EventLog
from service.settings import Settings
from service.shared_secret import SharedSecret

COLUMNS = 240
MINUTE_MS = 60_000
OTHER_USER = "00000000-0000-4000-8000-00000000000b"
OTHER_AGENT = "00000000-0000-4000-8000-00000000000a"
UNKNOWN = "00000000-0000-4000-8000-00000000000c"
TIMESTAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"

Prompt = Callable[[str], str]


class Outcome(NamedTuple):
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.out.splitlines()]

    @property
    def document(self) -> Any:
        return json.loads(self.out)


class Operator:
    """Runs commands with the settings of the service."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    async def run(self, words: str, *, columns: int = COLUMNS, prompt: Prompt | None = None) -> Outcome:
        """Run a command in a thread, because it starts its own event loop."""
        return await asyncio.to_thread(_run, self.settings, words, columns, prompt)


def _run(settings: Settings, words: str, columns: int, prompt: Prompt | None) -> Outcome:
    out, err = io.StringIO(), io.StringIO()
    command = arguments.parse(words.split())
    assert isinstance(command, arguments.RedisCommand)
    terminal = Terminal(_console(out, columns), _console(err, columns), prompt)
    code = commands.run(command, settings, terminal, EventLog(SharedSecret()))
    return Outcome(code, out.getvalue(), err.getvalue())


def _console(stream: io.StringIO, columns: int) -> Console:
    return Console(file=stream, width=columns, markup=False, highlight=False, emoji=False)


def cells(line: str) -> list[str]:
    return re.split(r" {2,}", line.strip())


def row(outcome: Outcome, name: str) -> str:
    """Return the value of the first row with this name."""
    return next(line.partition(name)[2].strip() for line in outcome.lines if line.startswith(name))
