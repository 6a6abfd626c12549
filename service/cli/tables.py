"""Formats reports as tables for a terminal.

Data of clients is shown as plain text, without markup and without control characters.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from pydantic.alias_generators import to_camel
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from service.cli.inspection import (
    TIMESTAMP_FIELDS,
    IndexEntry,
    ListReport,
    OverviewReport,
    Report,
    SessionReport,
    State,
    StoredHash,
)
from service.sessions.policies import Policy
from service.sessions.session import Session
from service.timestamps import format_duration, format_relative, iso

WIDE_COLUMNS = 200
"""With fewer columns, a session takes three lines instead of one."""

_COLUMNS = (("session", "agent", "user"), ("created", "last activity"), ("expires in", "renewals", "revision"))
_STYLES: Mapping[State, str] = {
    "live": "green",
    "expired": "yellow",
    "mark": "yellow",
    "lost": "red",
    "unreadable": "red",
    "unknown": "red",
}


def report_tables(report: Report, width: int) -> RenderableType:
    """Format a report for a terminal with `width` columns."""
    match report:
        case SessionReport():
            return _session_report(report)
        case ListReport():
            return _list_report(report, width)
        case OverviewReport():
            return Group(_totals(report), "", _list_report(report.listing, width))


def _totals(report: OverviewReport) -> Table:
    expired = str(report.counts.expired)
    if report.oldest_expiry_ms is not None:
        expired += f", the oldest {format_relative(report.oldest_expiry_ms, report.now_ms)}"
    return _pairs(
        [
            ("server", Text(report.server or "unknown (no permission for INFO)")),
            ("active", Text(str(report.counts.active), "green")),
            ("near expiration", Text(str(report.near_expiration), "yellow" if report.near_expiration else "")),
            ("expired, not yet swept", Text(expired)),
        ]
    )


def _list_report(report: ListReport, width: int) -> Group:
    policy: list[RenderableType] = [_policy(report.policy), Text()] if report.policy else []
    sessions: list[RenderableType] = [_sessions(report.sessions, width), Text()] if report.sessions else []
    return Group(*policy, *sessions, _summary(report))


def _summary(report: ListReport) -> Text:
    number = len(report.sessions)
    if report.has_more:
        return Text(f"{number} of {report.total} sessions. Use --limit N to list more, --json to show all fields.")
    return Text("1 session" if number == 1 else f"{number or 'no'} sessions")


def _policy(policy: Policy) -> Table:
    assert policy.updated_at is not None
    members = ", ".join(f"{to_camel(member)} {value.decode()}" for member, value in policy.timeout.items())
    updated = Text(iso(int(policy.updated_at)))
    return _pairs([("agent policy", Text(members or "empty")), ("updated", updated)])


def _sessions(sessions: Iterable[Session], width: int) -> Table:
    is_wide = width >= WIDE_COLUMNS
    table = Table(box=None, padding=(0, 2, 0 if is_wide else 1, 0), header_style="bold")
    for heading in chain(*_COLUMNS) if is_wide else map(_stacked, _COLUMNS):
        table.add_column(heading, overflow="fold")
    for session in sessions:
        stacks = _cells(session)
        table.add_row(*(chain(*stacks) if is_wide else map(Text("\n").join, stacks)))
    return table


def _stacked(headings: Sequence[str]) -> str:
    """Join headings one per line. Padding keeps short stacks at the top, where rich would align them at the bottom."""
    return "\n".join([*headings, ""][: len(_COLUMNS[0])])


def _cells(session: Session) -> tuple[list[Text], ...]:
    style = "yellow" if session.is_near_expiration else "green"
    return (
        [Text(session.id, "bold"), Text(session.agent_id), Text(session.user_id)],
        [Text(iso(session.created_at_ms)), Text(iso(session.last_activity_ms))],
        [
            Text(format_duration(session.time_remaining_ms), style),
            Text(str(session.renewal_count)),
            Text(session.stored.revision.decode()),
        ],
    )


def _session_report(report: SessionReport) -> Group:
    heading = Text(f"{printable(report.session_id)}\n", "bold").append(report.detail, _STYLES[report.state])
    if report.log_hash:
        heading.append(f"\nIts hash in logs is {report.log_hash}.", "dim")
    hashes = [("session", report.session), ("tombstone", report.tombstone)]
    tables = [_hash(name, hash_, report.now_ms) for name, hash_ in hashes if hash_.key]
    entries = [_entries(report)] if report.entries else []
    return Group(heading, *[Group("", table) for table in [*tables, *entries]])


def _hash(name: str, hash_: StoredHash, now_ms: int) -> Table:
    rows = [(field, Text(_value(field, value, now_ms))) for field, value in hash_.fields.items()]
    return _pairs([(name, Text(printable(hash_.key), "bold")), ("TTL", _ttl(hash_.ttl_ms)), *rows])


def _ttl(ttl_ms: int) -> Text:
    match ttl_ms:
        case -2:
            return Text("no such key", "dim")
        case -1:
            return Text("none: the key never expires", "red")
        case _:
            return Text(f"{format_duration(ttl_ms)} ({ttl_ms} ms)")


def _entries(report: SessionReport) -> Table:
    rows = [(entry.name, _score(entry, report)) for entry in report.entries]
    return _pairs([("index", Text("score", "bold")), *rows])


def _score(entry: IndexEntry, report: SessionReport) -> Text:
    if entry.score_ms is not None:
        return Text(_timestamp(entry.score_ms, report.now_ms))
    if report.state == "live":
        return Text(f"missing in {printable(entry.key)}", "red")
    return Text(f"not in {printable(entry.key)}", "dim")


def _pairs(rows: Sequence[tuple[str, Text]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(printable(name)), value)
    return table


def _value(field: str, value: str, now_ms: int) -> str:
    if field in TIMESTAMP_FIELDS and value.isdecimal():
        return _timestamp(int(value), now_ms)
    return printable(value)


def _timestamp(timestamp_ms: int, now_ms: int) -> str:
    return f"{iso(timestamp_ms)} ({format_relative(timestamp_ms, now_ms)})"


def printable(text: str) -> str:
    """Replace the characters that a terminal would interpret."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
