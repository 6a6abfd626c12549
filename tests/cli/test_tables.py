"""What an operator is shown: how it is coloured, and how it fits."""

import io

import pytest
from rich.console import Console

from service.cli.inspection import SessionTable
from service.cli.tables import WIDE, looked_at
from service.sessions.listing import SessionFilter
from service.sessions.session import Session, session_from
from tests.conftest import AGENT, USER

AN_ID = "ab90c3cc-0d44-4b50-8888-8dd25736052a"
NOW_MS = 1_795_306_504_990
MINUTE_MS = 60_000


def ending_in(minutes: int) -> Session:
    instants = [b"%d" % instant for instant in (NOW_MS, NOW_MS, NOW_MS, NOW_MS + minutes * MINUTE_MS)]
    return session_from(
        AN_ID, [AGENT.encode(), USER.encode(), *instants, b"30", b"true", b"720", b"5", b"4", b"2", b"{}"], NOW_MS
    )


def drawn(session: Session, width: int) -> str:
    """A listing of that one session, on a terminal with colours."""
    out = io.StringIO()
    listing = SessionTable(SessionFilter(), [session], 1, more=False, policy=None, owner_indexes=[], policy_key=None)
    console = Console(file=out, width=width, force_terminal=True, color_system="standard", no_color=False)
    console.print(looked_at(listing, width))
    return out.getvalue()


@pytest.mark.parametrize(("minutes", "shown"), [(4, "\x1b[33m4m"), (6, "\x1b[32m6m")])
def test_one_near_its_end_is_of_another_colour(minutes: int, shown: str) -> None:
    assert shown in drawn(ending_in(minutes), WIDE)


def test_a_wide_terminal_shows_a_session_on_one_line() -> None:
    (line,) = [line for line in drawn(ending_in(6), WIDE).splitlines() if AN_ID in line]

    assert all(cell in line for cell in (AGENT, USER, "2026-11-22T00:15:04.990Z", "6m"))


@pytest.mark.parametrize("width", [80, WIDE - 1, WIDE, 400])
def test_nothing_is_cut(width: int) -> None:
    shown = drawn(ending_in(6), width)

    assert all(cell in shown for cell in (AN_ID, AGENT, USER, "2026-11-22T00:15:04.990Z", "6m", "revision"))
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown


@pytest.mark.parametrize("width", [20, 40])
def test_where_there_is_no_room_ids_are_folded_and_not_cut(width: int) -> None:
    assert "\N{HORIZONTAL ELLIPSIS}" not in drawn(ending_in(6), width)
