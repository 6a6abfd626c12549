"""What an operator is shown, as tables for a terminal. Nothing here knows Redis.

Whatever came from a client is shown as text: no markup is read in it, and nothing unprintable passes.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from pydantic.alias_generators import to_camel
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from service.cli.durations import human, relative
from service.cli.inspection import INSTANTS, Found, Hash, Looked, Overview, Place, SessionTable, State
from service.sessions.policies import Policy
from service.sessions.session import Session
from service.timestamps import iso

WIDE = 200
"""Columns in which a session fits on one line; with fewer it takes three."""

_COLUMNS = (("session", "agent", "user"), ("created", "last activity"), ("ends in", "renewals", "revision"))
_STYLES: Mapping[State, str] = {"live": "green", "expired": "yellow", "mark": "yellow", "lost": "red", "unknown": "red"}


def looked_at(looked: Looked, width: int) -> RenderableType:
    """What was looked at, for a terminal of that width."""
    match looked:
        case Found():
            return _found(looked)
        case SessionTable():
            return _listing(looked, width)
        case Overview():
            return Group(_totals(looked), "", _listing(looked.listing, width))


def _totals(overview: Overview) -> Table:
    ended = str(overview.tally.ended)
    if overview.oldest_end_ms is not None:
        ended += f", the oldest {relative(overview.oldest_end_ms, overview.at_ms)}"
    return _pairs(
        [
            ("server", Text(overview.server or "does not say what it is")),
            ("active", Text(str(overview.tally.active), "green")),
            ("near expiration", Text(str(overview.near), "yellow" if overview.near else "")),
            ("ended, not yet swept", Text(ended)),
        ]
    )


def _listing(listing: SessionTable, width: int) -> Group:
    policy: list[RenderableType] = [_policy(listing.policy), Text()] if listing.policy else []
    shown: list[RenderableType] = [_sessions(listing.sessions, width), Text()] if listing.sessions else []
    return Group(*policy, *shown, _extent(listing))


def _extent(listing: SessionTable) -> Text:
    number = len(listing.sessions)
    if listing.more:
        return Text(f"{number} of {listing.total} sessions; --limit N shows more of them, --json every field")
    return Text("1 session" if number == 1 else f"{number or 'no'} sessions")


def _policy(policy: Policy) -> Table:
    assert policy.updated_at is not None
    given = ", ".join(f"{to_camel(member)} {value.decode()}" for member, value in policy.timeout.items())
    since = Text(iso(int(policy.updated_at)))
    return _pairs([("agent's policy", Text(given or "nothing of its own")), ("in force since", since)])


def _sessions(sessions: Iterable[Session], width: int) -> Table:
    is_wide = width >= WIDE
    table = Table(box=None, padding=(0, 2, 0 if is_wide else 1, 0), header_style="bold")
    for heading in chain(*_COLUMNS) if is_wide else map(_stacked, _COLUMNS):
        table.add_column(heading, overflow="fold")
    for session in sessions:
        stacks = _cells(session)
        table.add_row(*(chain(*stacks) if is_wide else map(Text("\n").join, stacks)))
    return table


def _stacked(headings: Sequence[str]) -> str:
    """One below the other, as the cells under them are; rich would let them stand at the bottom."""
    return "\n".join([*headings, ""][: len(_COLUMNS[0])])


def _cells(session: Session) -> tuple[list[Text], ...]:
    near = "yellow" if session.is_near_expiration else "green"
    return (
        [Text(session.id, "bold"), Text(session.agent_id), Text(session.user_id)],
        [Text(iso(session.created_at_ms)), Text(iso(session.last_activity_ms))],
        [
            Text(human(session.time_remaining_ms), near),
            Text(str(session.renewal_count)),
            Text(session.stored.revision.decode()),
        ],
    )


def _found(found: Found) -> Group:
    verdict = Text(f"{printable(found.session_id)}\n", "bold").append(found.detail, _STYLES[found.state])
    if found.log_hash:
        verdict.append(f"\nIn logs it is {found.log_hash}.", "dim")
    hashes = [("session", found.session), ("tombstone", found.tombstone)]
    parts = [_hash(name, hash_, found.at_ms) for name, hash_ in hashes if hash_.key]
    places = [_places(found)] if found.places else []
    return Group(verdict, *[Group("", part) for part in [*parts, *places]])


def _hash(name: str, hash_: Hash, now_ms: int) -> Table:
    rows = [(field, Text(_shown(field, value, now_ms))) for field, value in hash_.fields.items()]
    return _pairs([(name, Text(printable(hash_.key), "bold")), ("TTL", _ttl(hash_.ttl_ms)), *rows])


def _ttl(ttl_ms: int) -> Text:
    match ttl_ms:
        case -2:
            return Text("no such key", "dim")
        case -1:
            return Text("none: this key would stay for good", "red")
        case _:
            return Text(f"{human(ttl_ms)} ({ttl_ms} ms)")


def _places(found: Found) -> Table:
    rows = [(place.name, _place(place, found)) for place in found.places]
    return _pairs([("index", Text("lists it under", "bold")), *rows])


def _place(place: Place, found: Found) -> Text:
    if place.listed_at_ms is None:
        is_amiss = found.state == "live"
        word = "missing in" if is_amiss else "not in"
        return Text(f"{word} {printable(place.key)}", "red" if is_amiss else "dim")
    return Text(_instant(place.listed_at_ms, found.at_ms))


def _pairs(rows: Sequence[tuple[str, Text]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(printable(name)), value)
    return table


def _shown(field: str, value: str, now_ms: int) -> str:
    if field in INSTANTS and value.isdecimal():
        return _instant(int(value), now_ms)
    return printable(value)


def _instant(instant_ms: int, now_ms: int) -> str:
    return f"{iso(instant_ms)} ({relative(instant_ms, now_ms)})"


def printable(text: str) -> str:
    """The same without what a terminal would obey."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
