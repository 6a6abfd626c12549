"""The audit log: who did what, when, and from which address. Rejected requests are recorded too.

Sessions, agents and users appear as hashes, as in the log. Keys, tokens and metadata never appear.
"""

import logging
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import orjson

from service.errors import StartupError
from service.observability.event_log import EventLog
from service.observability.log import REQUEST_ID, console_line
from service.observability.log_writer import LogWriter
from service.observability.metrics import Metrics
from service.settings import Settings
from service.shared_secret import SharedSecret
from service.timestamps import iso

_AUDIT = "audit"
"""The value of `log` in each record, which distinguishes records from log lines on the same stream."""

_MAX_NAME_LENGTH = 200
_ERROR_INTERVAL_SECONDS = 60

_log = logging.getLogger(__name__)

ActorKind = Literal["key", "token", "user", "anonymous", "service", "sweeper", "terminal"]
AuditValue = str | int | bool | None
FormatRecord = Callable[[Mapping[str, AuditValue]], str]


class Actor(NamedTuple):
    """Who performs an action, and from which address. The name of a user is their id."""

    kind: ActorKind
    name: str = ""
    address: str | None = None


CURRENT_ACTOR: ContextVar[Callable[[], Actor]] = ContextVar("current_actor")
"""Returns the actor of the current request. It is called only if there is something to record."""


class AuditLog:
    """Writes records. `default_actor` performs actions outside of requests."""

    def __init__(
        self,
        secret: SharedSecret,
        format_record: FormatRecord,
        write_line: Callable[[str], None],
        default_actor: Actor,
        worker: int | None = None,
    ) -> None:
        self._hash_id = secret.hash_id
        self._format_record = format_record
        self._write_line = write_line
        self._default_actor = lambda: default_actor
        self._worker: dict[str, AuditValue] = {} if worker is None else {"worker": worker}

    def record(
        self,
        action: str,
        *,
        session: str | None = None,
        agent: str | None = None,
        user: str | None = None,
        outcome: str = "done",
        actor: Callable[[], Actor] | None = None,
        **fields: AuditValue,
    ) -> None:
        """Write a record. Hashes the ids. The default actor is that of the current request."""
        resolved = (actor or CURRENT_ACTOR.get(self._default_actor))()
        members: dict[str, AuditValue] = {
            "timestamp": iso(time.time_ns() // 1_000_000),
            "log": _AUDIT,
            "action": action,
            "outcome": outcome,
            "actor": self._describe(resolved),
            "address": resolved.address,
            "request_id": REQUEST_ID.get(None),
            "session": session and self._hash_id(session),
            "agent": agent and self._hash_id(agent),
            "user": user and self._hash_id(user),
            **fields,
            **self._worker,
        }
        given = {name: value for name, value in members.items() if value is not None}
        self._write_line(self._format_record(given))

    def _describe(self, actor: Actor) -> str:
        if not actor.name:
            return actor.kind
        name = self._hash_id(actor.name) if actor.kind == "user" else _printable(actor.name)
        return f"{actor.kind}:{name}"


@contextmanager
def open_audit_log(
    settings: Settings, event_log: EventLog, metrics: Metrics, default_actor: Actor
) -> Iterator[AuditLog | None]:
    """Open the audit log of the settings; None if it is off. Raises StartupError if its file cannot be opened."""
    new_log = partial(AuditLog, event_log.secret, default_actor=default_actor, worker=event_log.worker)
    if settings.audit_file is not None:
        with closing(_file_writer(settings.audit_file, metrics)) as writer:
            yield new_log(json_record, writer.write)
    elif settings.session_audit_log == "stderr" and event_log.writer is not None:
        yield new_log(console_record if event_log.is_console else json_record, event_log.writer.write)
    else:
        yield None


def json_record(members: Mapping[str, AuditValue]) -> str:
    return orjson.dumps(members).decode()


def console_record(members: Mapping[str, AuditValue]) -> str:
    """Format a record like a line of the log, with `audit` as the level."""
    others = {name: value for name, value in members.items() if name not in ("log", "action")}
    return console_line({**others, "level": _AUDIT, "event": members["action"]})


def _printable(name: str) -> str:
    """Escape a name that a token issuer chose, so that it cannot end a line or control a terminal."""
    name = name[:_MAX_NAME_LENGTH]
    return name if name.isprintable() else name.encode("unicode_escape").decode()


def _file_writer(path: Path, metrics: Metrics) -> LogWriter:
    try:
        file = AuditFile(path)
    except OSError as error:
        raise StartupError(f"SESSION_AUDIT_LOG={path} cannot be opened: {error.strerror or error}") from None
    writer = LogWriter(file, name="the audit log")
    writer.before_write, writer.on_error = file.reopen_if_moved, file.report_error
    writer.on_dropped = metrics.log_lines_dropped.labels("audit").inc
    return writer


class AuditFile:
    """A file to append to, which rotation may move away. Only its owner can read a file that is created here.

    The descriptor is constant and never closed: a thread that is blocked by the disk may still use it.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError, also if the path is not a regular file: writing to a pipe without a reader would block."""
        self._path = path
        self._file = _open(path)
        self._reported_at = float("-inf")

    def fileno(self) -> int:
        return self._file

    def reopen_if_moved(self) -> None:
        """Continue in a new file if the path was moved or removed. Keeps the old file if this fails."""
        try:
            if self._is_moved():
                new = _open(self._path)
                os.dup2(new, self._file, inheritable=False)
                os.close(new)
        except OSError as error:
            self.report_error(error)

    def report_error(self, error: OSError) -> None:
        """Log an error, at most once per minute."""
        if time.monotonic() - self._reported_at >= _ERROR_INTERVAL_SECONDS:
            self._reported_at = time.monotonic()
            _log.error("the audit log cannot be written: %s", error.strerror or error)

    def _is_moved(self) -> bool:
        try:
            current = os.stat(self._path)
        except FileNotFoundError:
            return True
        return not os.path.samestat(current, os.fstat(self._file))


def _open(path: Path) -> int:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o600)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError("not a regular file")
    return file
