"""The command line is parsed into commands. Invalid arguments exit with code 2 and an error."""

import pytest

from service.cli import arguments
from tests.cli.operator import UNKNOWN
from tests.conftest import AGENT, USER


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("inspect --user nobody", "argument --user: must be a UUID in the 36-character form"),
        ("inspect --limit 0", "argument --limit: must be a whole number between 1 and 1000"),
        ("inspect --limit 1001", "argument --limit: must be a whole number between 1 and 1000"),
        (f"inspect --watch {UNKNOWN}", "argument --watch: must be between 0.1 and 3600 seconds"),
        ("inspect --watch nan", "argument --watch: must be between 0.1 and 3600 seconds"),
        (f"inspect {UNKNOWN} --user {USER}", "an ID excludes --user and --agent"),
        ("revoke", "an ID, --user or --agent is required"),
        (f"revoke {UNKNOWN} --agent {AGENT}", "an ID excludes --user and --agent"),
        ("--workers 0", "argument --workers: must be a whole number between 1 and 64"),
        ("serve --workers 65", "argument --workers: must be a whole number between 1 and 64"),
        ("--workers 2 inspect", "--workers: only `serve` has this option"),
        ("hash", "the following arguments are required: ID"),
        ("key", "the following arguments are required: NAME, --scopes"),
        ("key web --scopes reed", "argument --scopes: scopes must be a comma-separated list of read, write, admin"),
        ("key web: --scopes read", "argument NAME: must be up to 64 letters, digits and ._-"),
        ("destroy", "invalid choice: 'destroy'"),
    ],
)
def test_invalid_arguments_exit_with_an_error(words: str, error: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        arguments.parse(words.split())

    assert exit_.value.code == 2
    assert error in capsys.readouterr().err


def test_a_uuid_can_be_in_upper_case() -> None:
    command = arguments.parse(["inspect", "--user", USER.upper()])

    assert isinstance(command, arguments.Inspect)
    assert command.session_filter.user_id == USER


@pytest.mark.parametrize("words", ["inspect", "revoke"])
def test_the_id_of_a_session_can_be_in_upper_case(words: str) -> None:
    command = arguments.parse([words, UNKNOWN.upper()])

    assert isinstance(command, arguments.Inspect | arguments.Revoke)
    assert command.session_id == UNKNOWN


def test_the_scopes_of_a_key_can_be_in_any_order() -> None:
    command = arguments.parse(["key", "web", "--scopes", "write,read"])

    assert command == arguments.CreateKey("web", ("read", "write"))


@pytest.mark.parametrize("words", [[], ["serve"]])
def test_serve_is_the_default_command(words: list[str]) -> None:
    assert arguments.parse(words) == arguments.Serve()


@pytest.mark.parametrize(
    "words", ["--workers 4", "serve --workers 4", "--workers 4 serve", "--workers 2 serve --workers 4"]
)
def test_the_number_of_workers_can_be_before_or_after_serve(words: str) -> None:
    assert arguments.parse(words.split()) == arguments.Serve(4)
