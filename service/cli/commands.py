"""The operator's terminal: looks at sessions, and ends them, in words and tables or in JSON."""

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

from service.cli import connection, tables
from service.cli.arguments import HashIds, Inspect, Revoke
from service.cli.durations import human
from service.cli.inspection import Found, Looked
from service.cli.json_output import document
from service.errors import ServiceError, StartupError, StoreUnavailable
from service.maintenance.schema_version import UnknownSchemaVersion
from service.observability.audit import Audit, Origin
from service.observability.event_log import EventLog
from service.observability.metrics import Metrics
from service.process.auditing import auditing
from service.redis_client.errors import ScriptError
from service.sessions.listing import SessionFilter
from service.sessions.revocation import OwnerFilter
from service.settings import Settings
from service.shared_secret import SharedSecret

DONE, NOT_DONE, WRONG_ARGUMENTS, INTERRUPTED = 0, 1, 2, 130

_NO_SECRET = "Redis holds no secret to hash ids by: no replica of this release has served over it yet"
_WIDTH_OF_A_PIPE = 240


class Terminal(NamedTuple):
    """Where a command speaks: of what it was asked `out`, of trouble `err`. `ask` is None where nobody can be asked."""

    out: Console
    err: Console
    ask: Callable[[str], str] | None

    def complain(self, detail: str) -> None:
        self.err.print(Text(tables.printable(detail)), soft_wrap=True)


def here() -> Terminal:
    """The one that this process runs in. Where the output goes into a pipe or a file, its lines are long."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDTH_OF_A_PIPE
    out = Console(width=width, markup=False, highlight=False, emoji=False)
    err = Console(stderr=True, markup=False, highlight=False, emoji=False)
    return Terminal(out, err, input if sys.stdin.isatty() else None)


def run(asked: Inspect | Revoke | HashIds, settings: Settings, terminal: Terminal, event_log: EventLog) -> int:
    """Do what is asked; the exit code. The audit is told of what was ended, beside the log where it stands there."""
    if isinstance(asked, Revoke) and not asked.confirmed and terminal.ask is None:
        terminal.complain("revoke: there is no terminal to ask on, so --yes is needed")
        return WRONG_ARGUMENTS
    try:
        with _audit_of(asked, settings, event_log) as audit, asyncio.Runner() as runner:
            return _Command(runner, settings, terminal, event_log.secret, audit).run(asked)
    except KeyboardInterrupt:
        return DONE if isinstance(asked, Inspect) and asked.every_seconds else INTERRUPTED
    except (ServiceError, StartupError, ScriptError) as error:
        terminal.complain(_told(error))
        return NOT_DONE


class _Command:
    """One command under way. It is no coroutine itself: it asks a person, and waits for what is."""

    def __init__(
        self, runner: asyncio.Runner, settings: Settings, terminal: Terminal, secret: SharedSecret, audit: Audit | None
    ) -> None:
        self._wait_for = runner.run
        self._out = terminal.out
        self._terminal = terminal
        self._secret = secret
        self._access = runner.run(connection.opened(settings, secret, audit))

    def run(self, asked: Inspect | Revoke | HashIds) -> int:
        try:
            match asked:
                case Revoke():
                    return self._revoke(asked)
                case Inspect(every_seconds=float(seconds)):
                    self._watch(asked, seconds)
                case Inspect():
                    return self._inspect(asked)
                case HashIds():
                    return self._tell_hashes(asked)
        finally:
            self._wait_for(self._access.aclose())

    def _inspect(self, asked: Inspect) -> int:
        looked = self._look(asked)
        self._print(asked, looked)
        return NOT_DONE if isinstance(looked, Found) and looked.state == "unknown" else DONE

    def _watch(self, asked: Inspect, every_seconds: float) -> NoReturn:
        if not self._out.is_terminal or asked.as_json:
            self._look_again_and_again(asked, every_seconds, partial(self._print, asked), self._terminal.complain)
        with Live(console=self._out, auto_refresh=False) as live:
            show = partial(live.update, refresh=True)
            self._look_again_and_again(
                asked, every_seconds, lambda looked: show(self._whole(looked)), lambda trouble: show(Text(trouble))
            )

    def _look_again_and_again(
        self, asked: Inspect, every_seconds: float, show: Callable[[Looked], None], tell: Callable[[str], None]
    ) -> NoReturn:
        """Until Ctrl-C, also through an outage of Redis."""
        while True:
            try:
                show(self._look(asked))
            except StoreUnavailable as error:
                tell(_told(error))
            time.sleep(every_seconds)

    def _look(self, asked: Inspect) -> Looked:
        self._wait_for(self._access.layout.heed_only())
        inspection = self._access.inspection
        if asked.session_id is not None:
            return self._wait_for(inspection.session(asked.session_id))
        if asked.wanted == SessionFilter():
            return self._wait_for(inspection.overview(asked.limit))
        return self._wait_for(inspection.listing(asked.wanted, asked.limit))

    def _print(self, asked: Inspect, looked: Looked) -> None:
        if asked.as_json:
            self._out.out(document(looked, self._access.url), highlight=False)
            return
        self._out.print(tables.looked_at(looked, self._out.width))
        self._out.print()
        for line in self._lines(looked):
            self._out.print(line, soft_wrap=True)  # whole, to be copied
        if asked.every_seconds is not None:
            self._out.print()

    def _whole(self, looked: Looked) -> RenderableType:
        return Group(tables.looked_at(looked, self._out.width), "", *self._lines(looked))

    def _lines(self, looked: Looked) -> list[Text]:
        return [Text(line, "dim", overflow="fold") for line in looked.redis_cli_lines(self._access.url)]

    def _tell_hashes(self, asked: HashIds) -> int:
        self._wait_for(self._access.layout.heed_only())
        if not self._secret.is_known:
            self._terminal.complain(_NO_SECRET)
            return NOT_DONE
        for id_ in asked.ids:
            self._say(f"{self._secret.hashed(id_)}  {tables.printable(id_)}")
        return DONE

    def _revoke(self, asked: Revoke) -> int:
        self._wait_for(self._access.layout.heed())
        self._say(self._about(asked))
        if not asked.confirmed and not self._is_confirmed():
            self._say("Nothing was ended.")
            return NOT_DONE
        self._wait_for(self._access.layout.heed())  # a person may have taken time to answer
        if asked.session_id is not None:
            self._wait_for(self._access.store.delete(asked.session_id))
            self._say("The session has ended.")
        else:
            self._say(f"{_sessions(self._ended(asked.whose))} ended.")
        return DONE

    def _about(self, asked: Revoke) -> str:
        """What is about to end. Raises what a session's reader is told where there is no such session."""
        if asked.session_id is not None:
            session = self._wait_for(self._access.store.get(asked.session_id))
            whose = OwnerFilter(session.agent_id, session.user_id)
            return f"A session of {_owners(whose)} that lives and ends in {human(session.time_remaining_ms)}."
        page = self._wait_for(self._access.directory.page(SessionFilter(*asked.whose), 1))
        return f"Of {_owners(asked.whose)}: {_sessions(page.total)} listed."

    def _is_confirmed(self) -> bool:
        assert self._terminal.ask is not None
        try:
            return self._terminal.ask("Revoke? [y/N] ").strip().lower() in ("y", "yes")
        except EOFError:
            return False

    def _ended(self, whose: OwnerFilter) -> int:
        """End all, call by call; how many were ended."""
        revoked = self._wait_for(self._access.revocation.revoke(whose))
        number = revoked.number
        while revoked.rest is not None:
            self._say(f"{_sessions(number)} ended so far.")
            revoked = self._wait_for(self._access.revocation.revoke(whose, revoked.rest))
            number += revoked.number
        return number

    def _say(self, detail: str) -> None:
        self._out.print(Text(detail), soft_wrap=True)


def _audit_of(
    asked: Inspect | Revoke | HashIds, settings: Settings, event_log: EventLog
) -> AbstractContextManager[Audit | None]:
    """Looking leaves no line, and needs no file to write it to."""
    if not isinstance(asked, Revoke):
        return nullcontext()
    return auditing(settings, event_log, Metrics(), Origin("terminal", _login()))


def _login() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container it may have none
        return str(os.getuid())


def _owners(whose: OwnerFilter) -> str:
    named = (("agent", whose.agent_id), ("user", whose.user_id))
    return " and ".join(f"{kind} {owner}" for kind, owner in named if owner is not None)


def _sessions(number: int) -> str:
    return "1 session" if number == 1 else f"{number} sessions"


def _told(error: ServiceError | StartupError | ScriptError) -> str:
    match error:
        case UnknownSchemaVersion():
            return error.cause
        case StoreUnavailable():
            return f"Redis is not available: {error.cause}"
        case ScriptError():
            return f"Redis holds what this service did not write: {error}"
        case _:
            return str(error)
