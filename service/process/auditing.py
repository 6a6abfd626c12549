"""The audit that the settings ask for, from its opening to its last line."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial

import orjson

from service.errors import StartupError
from service.observability.audit import MARK, Audit, Fact, Origin
from service.observability.audit_file import AuditFile
from service.observability.event_log import EventLog
from service.observability.log_writer import LogWriter
from service.observability.metrics import Metrics
from service.settings import Settings


@contextmanager
def auditing(settings: Settings, event_log: EventLog, metrics: Metrics, doer: Origin) -> Iterator[Audit | None]:
    """None where there is to be none. What no request does is the `doer`'s. Raises StartupError."""
    audit = partial(Audit, event_log.secret, doer=doer, worker=event_log.worker)
    with ExitStack() as stack:
        if settings.audit_file is not None:
            lines = stack.enter_context(closing(_lines_into(_opened(settings), metrics)))
            yield audit(_as_json, lines.write)
        elif settings.session_audit_log == "stderr" and event_log.writer is not None:
            yield audit(_readable if event_log.is_console else _as_json, event_log.writer.write)
        else:
            yield None


def _opened(settings: Settings) -> AuditFile:
    assert settings.audit_file is not None
    try:
        return AuditFile(settings.audit_file)
    except OSError as error:
        raise StartupError(f"SESSION_AUDIT_LOG={settings.audit_file}: {error.strerror or error}") from None


def _lines_into(file: AuditFile, metrics: Metrics) -> LogWriter:
    lines = LogWriter(file, name="the audit log")
    lines.before_write, lines.on_error = file.follow, file.tell
    lines.on_dropped = metrics.log_lines_dropped.labels("audit").inc
    return lines


def _as_json(members: dict[str, Fact]) -> str:
    return orjson.dumps(members).decode()


def _readable(members: dict[str, Fact]) -> str:
    """As the log has it for people."""
    at, _, action, *rest = members.items()
    facts = " ".join(f"{name}={_shown(value)}" for name, value in rest)
    return f"{at[1]} [{MARK:<9}] {action[1]:<30} {facts}"


def _shown(value: Fact) -> str:
    shown = str(value)
    return f'"{shown}"' if " " in shown else shown
