"""Tables of sessions have colors, and fit the width of the terminal without cutting values."""

import io

import pytest
from rich.console import Console

from service.cli.inspection import ListReport
from service.cli.tables import WIDE_COLUMNS, report_tables
from service.sessions.listing import SessionFilter
from service.sessions.session import Session, session_from
from tests.conftest import AGENT, USER

AN_ID = "ab90c3cc-0d44-4b50-8888-8dd25736052a"
NOW_MS = 1_795_306_504_990
MINUTE_MS = 60_000


def session_expiring_in(minutes: int) -> Session:
    timestamps = [b"%d" % timestamp for timestamp in (NOW_MS, NOW_MS, NOW_MS, NOW_MS + minutes * MINUTE_MS)]
    return session_from(
        AN_ID, [AGENT.encode(), USER.encode(), *timestamps, b"30", b"true", b"720", b"5", b"4", b"2", b"{}"], NOW_MS
    )


def rendered(session: Session, width: int) -> str:
    """Return the list of this session, for a terminal with colors."""
    out = io.StringIO()
    report = ListReport(SessionFilter(), [session], 1, has_more=False, policy=None, owner_indexes=[], policy_key=None)
    console = Console(file=out, width=width, force_terminal=True, color_system="standard", no_color=False)
    console.print(report_tables(report, width))
    return out.getvalue()


@pytest.mark.parametrize(("minutes", "text"), [(4, "\x1b[33m4m"), (6, "\x1b[32m6m")])
def test_a_session_near_expiration_has_another_color(minutes: int, text: str) -> None:
    assert text in rendered(session_expiring_in(minutes), WIDE_COLUMNS)


def test_a_wide_terminal_shows_a_session_on_one_line() -> None:
    (line,) = [line for line in rendered(session_expiring_in(6), WIDE_COLUMNS).splitlines() if AN_ID in line]

    assert all(cell in line for cell in (AGENT, USER, "2026-11-22T00:15:04.990Z", "6m"))


@pytest.mark.parametrize("width", [80, WIDE_COLUMNS - 1, WIDE_COLUMNS, 400])
def test_no_value_is_cut(width: int) -> None:
    text = rendered(session_expiring_in(6), width)

    assert all(cell in text for cell in (AN_ID, AGENT, USER, "2026-11-22T00:15:04.990Z", "6m", "revision"))
    assert "\N{HORIZONTAL ELLIPSIS}" not in text


@pytest.mark.parametrize("width", [20, 40])
def test_a_narrow_terminal_wraps_ids(width: int) -> None:
    assert "\N{HORIZONTAL ELLIPSIS}" not in rendered(session_expiring_in(6), width)
