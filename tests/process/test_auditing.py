"""Lines of the audit as they are written: one each, whatever a caller is called."""

import asyncio
import json
from pathlib import Path

import pytest

from service.errors import StoreUnavailable
from service.observability.audit import Audit, Origin, Render
from service.observability.event_log import EventLog
from service.observability.metrics import Metrics
from service.process.auditing import _as_json, _readable, auditing
from service.settings import Settings
from service.shared_secret import SharedSecret


def told_of(name: str, render: Render) -> str:
    """The one line about a service whose token calls it so."""
    lines: list[str] = []
    audit = Audit(SharedSecret(), render, lines.append, Origin("token", name))
    audit.tell("policy.put")
    (line,) = lines
    return line


@pytest.mark.parametrize("name", ['quoted"', "grüße", "auth0|a service"])
def test_a_name_is_told_as_it_is(name: str) -> None:
    assert json.loads(told_of(name, _as_json))["actor"] == f"token:{name}"


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[31mred", "\x9b31mred", "half a pair: \ud800"])
@pytest.mark.parametrize("render", [_as_json, _readable])
def test_what_would_end_a_line_or_change_a_terminal_is_spelt_out(name: str, render: Render) -> None:
    assert told_of(name, render).isprintable()


def test_a_name_has_an_end() -> None:
    assert len(json.loads(told_of("x" * 10_000, _as_json))["actor"]) == len("token:") + 200


@pytest.mark.parametrize(
    ("name", "shown"),
    [("billing", "token:billing"), ("a b", '"token:a b"'), ("\x1b[31mred", r"token:\x1b[31mred")],
)
def test_for_people_a_name_with_a_blank_is_quoted(name: str, shown: str) -> None:
    assert f" actor={shown}" in told_of(name, _readable)


async def end_some_and_fail(settings: Settings) -> None:
    with auditing(settings, EventLog(SharedSecret()), Metrics(), Origin("terminal", "operator")) as audit:
        assert audit is not None
        audit.tell("session.end", reason="revoked")
        raise StoreUnavailable("Redis is away in the midst of it")


def test_what_was_done_before_a_failure_is_told(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"

    with pytest.raises(StoreUnavailable):
        asyncio.run(end_some_and_fail(Settings(session_audit_log=str(file))))

    assert json.loads(file.read_text())["actor"] == "terminal:operator"
