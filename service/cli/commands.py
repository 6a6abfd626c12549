"""Runs the commands `inspect`, `revoke` and `hash`."""

import asyncio
import os
import pwd
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple, NoReturn

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from service.cli import connection
from service.cli.arguments import HashIds, Inspect, RedisCommand, Revoke
from service.cli.inspection import Report, SessionReport
from service.cli.json_output import json_document
from service.cli.tables import printable, report_tables
from service.errors import ServiceError, StartupError, StoreUnavailable
from service.maintenance.schema_version import UnknownSchemaVersion
from service.observability.audit import Actor, AuditLog, open_audit_log
from service.observability.event_log import EventLog
from service.observability.metrics import Metrics
from service.redis_client.errors import ScriptError
from service.sessions.listing import SessionFilter
from service.sessions.revocation import OwnerFilter
from service.sessions.store import UnreadableSession
from service.settings import Settings
from service.shared_secret import SharedSecret
from service.timestamps import format_duration

SUCCESS, FAILURE, INVALID_ARGUMENTS, INTERRUPTED = 0, 1, 2, 130

_NO_SECRET = "Redis has no shared secret to hash ids with. A replica creates it when it starts."
_PIPE_COLUMNS = 240


class Terminal(NamedTuple):
    """Output, errors, and a function that prompts; it is None if the input is not a terminal."""

    out: Console
    err: Console
    prompt: Callable[[str], str] | None

    def print_error(self, detail: str) -> None:
        self.err.print(Text(printable(detail)), soft_wrap=True)


def process_terminal() -> Terminal:
    """Return the terminal of this process. Output to a pipe or a file has long lines."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_COLUMNS
    out = Console(width=width, markup=False, highlight=False, emoji=False)
    err = Console(stderr=True, markup=False, highlight=False, emoji=False)
    return Terminal(out, err, input if sys.stdin.isatty() else None)


def run(command: RedisCommand, settings: Settings, terminal: Terminal, event_log: EventLog) -> int:
    """Run a command and return its exit code."""
    if isinstance(command, Revoke) and not command.is_confirmed and terminal.prompt is None:
        terminal.print_error("revoke: --yes is required, because there is no terminal to prompt on")
        return INVALID_ARGUMENTS
    try:
        with _audit_log(command, settings, event_log) as audit, asyncio.Runner() as runner:
            return _CommandRun(runner, settings, terminal, event_log.secret, audit).run(command)
    except KeyboardInterrupt:
        return SUCCESS if isinstance(command, Inspect) and command.watch_seconds else INTERRUPTED
    except (ServiceError, StartupError, ScriptError) as error:
        terminal.print_error(_message_of(error))
        return FAILURE


class _CommandRun:
    """One run of a command. It is synchronous, because it prompts, and runs coroutines on `runner`."""

    def __init__(
        self,
        runner: asyncio.Runner,
        settings: Settings,
        terminal: Terminal,
        secret: SharedSecret,
        audit: AuditLog | None,
    ) -> None:
        self._await = runner.run
        self._out = terminal.out
        self._terminal = terminal
        self._secret = secret
        self._backend = runner.run(connection.connect(settings, secret, audit))

    def run(self, command: RedisCommand) -> int:
        try:
            match command:
                case Revoke():
                    return self._revoke(command)
                case Inspect(watch_seconds=float(seconds)):
                    self._watch(command, seconds)
                case Inspect():
                    return self._inspect(command)
                case HashIds():
                    return self._hash(command)
        finally:
            self._await(self._backend.aclose())

    def _inspect(self, command: Inspect) -> int:
        report = self._read(command)
        self._print_report(command, report)
        return FAILURE if isinstance(report, SessionReport) and report.state == "unknown" else SUCCESS

    def _watch(self, command: Inspect, seconds: float) -> NoReturn:
        if not self._out.is_terminal or command.as_json:
            self._repeat(command, seconds, partial(self._print_report, command), self._terminal.print_error)
        with Live(console=self._out, auto_refresh=False) as live:
            show = partial(live.update, refresh=True)
            self._repeat(
                command, seconds, lambda report: show(self._renderable(report)), lambda error: show(Text(error))
            )

    def _repeat(
        self, command: Inspect, seconds: float, show: Callable[[Report], None], show_error: Callable[[str], None]
    ) -> NoReturn:
        """Repeat until Ctrl-C, also while Redis is unavailable."""
        while True:
            try:
                show(self._read(command))
            except StoreUnavailable as error:
                show_error(_message_of(error))
            time.sleep(seconds)

    def _read(self, command: Inspect) -> Report:
        self._await(self._backend.schema_version.check_supported_read_only())
        inspection = self._backend.inspection
        if command.session_id is not None:
            return self._await(inspection.session(command.session_id))
        if command.session_filter == SessionFilter():
            return self._await(inspection.overview(command.limit))
        return self._await(inspection.listing(command.session_filter, command.limit))

    def _print_report(self, command: Inspect, report: Report) -> None:
        if command.as_json:
            self._out.out(json_document(report, self._backend.url), highlight=False)
            return
        self._out.print(report_tables(report, self._out.width))
        self._out.print()
        for line in self._redis_cli_lines(report):
            self._out.print(line, soft_wrap=True)  # unbroken, to be copied
        if command.watch_seconds is not None:
            self._out.print()

    def _renderable(self, report: Report) -> RenderableType:
        return Group(report_tables(report, self._out.width), "", *self._redis_cli_lines(report))

    def _redis_cli_lines(self, report: Report) -> list[Text]:
        return [Text(line, "dim", overflow="fold") for line in report.redis_cli_lines(self._backend.url)]

    def _hash(self, command: HashIds) -> int:
        self._await(self._backend.schema_version.check_supported_read_only())
        if not self._secret.is_loaded:
            self._terminal.print_error(_NO_SECRET)
            return FAILURE
        for id_ in command.ids:
            self._print(f"{self._secret.hash_id(id_)}  {printable(id_)}")
        return SUCCESS

    def _revoke(self, command: Revoke) -> int:
        self._await(self._backend.schema_version.check_supported())
        self._print(self._description(command))
        if not command.is_confirmed and not self._confirm():
            self._print("Nothing was revoked.")
            return FAILURE
        self._await(self._backend.schema_version.check_supported())  # again, because the prompt may have taken long
        if command.session_id is not None:
            self._await(self._backend.store.delete(command.session_id))
            self._print("The session was revoked.")
        else:
            self._print(f"{_sessions(self._revoke_all(command.owner_filter))} revoked.")
        return SUCCESS

    def _description(self, command: Revoke) -> str:
        """Describe what will be revoked. Raises SessionNotFound and SessionExpired for one session."""
        if command.session_id is not None:
            try:
                session = self._await(self._backend.store.get(command.session_id))
            except UnreadableSession:
                return "This revokes an unreadable session."
            owners = _owners(OwnerFilter(session.agent_id, session.user_id))
            return f"This revokes a session of {owners}, which expires in {format_duration(session.time_remaining_ms)}."
        page = self._await(self._backend.listing.page(SessionFilter(*command.owner_filter), 1))
        return f"This revokes {_sessions(page.total)} of {_owners(command.owner_filter)}."

    def _confirm(self) -> bool:
        assert self._terminal.prompt is not None
        try:
            return self._terminal.prompt("Revoke? [y/N] ").strip().lower() in ("y", "yes")
        except EOFError:
            return False

    def _revoke_all(self, owner_filter: OwnerFilter) -> int:
        """Revoke in batches and return the number of revoked sessions."""
        revoked = self._await(self._backend.revocation.revoke(owner_filter))
        number = revoked.number
        while revoked.remainder is not None:
            self._print(f"{_sessions(number)} revoked so far.")
            revoked = self._await(self._backend.revocation.revoke(owner_filter, revoked.remainder))
            number += revoked.number
        return number

    def _print(self, text: str) -> None:
        self._out.print(Text(text), soft_wrap=True)


def _audit_log(
    command: RedisCommand, settings: Settings, event_log: EventLog
) -> AbstractContextManager[AuditLog | None]:
    """Open the audit log for commands that change something."""
    if not isinstance(command, Revoke):
        return nullcontext()
    return open_audit_log(settings, event_log, Metrics(), Actor("terminal", _login()))


def _login() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container, the user may have no name
        return str(os.getuid())


def _owners(owner_filter: OwnerFilter) -> str:
    owners = (("agent", owner_filter.agent_id), ("user", owner_filter.user_id))
    return " and ".join(f"{kind} {owner_id}" for kind, owner_id in owners if owner_id is not None)


def _sessions(number: int) -> str:
    return "1 session" if number == 1 else f"{number} sessions"


def _message_of(error: ServiceError | StartupError | ScriptError) -> str:
    match error:
        case UnknownSchemaVersion():
            return error.cause
        case StoreUnavailable():
            return f"Redis is unavailable: {error.cause}"
        case ScriptError():
            return f"Redis contains data that the service did not write: {error}"
        case _:
            return str(error)
