"""The command line: what is read from it, and that wrong words are refused with what is wrong."""

import pytest

from service.cli import arguments
from tests.conftest import AGENT, USER

UNKNOWN = "00000000-0000-4000-8000-00000000000c"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("inspect --user nobody", "argument --user: must be a UUID in the 36-character form"),
        ("inspect --limit 0", "argument --limit: must be a whole number from 1 to 1000"),
        ("inspect --limit 1001", "argument --limit: must be a whole number from 1 to 1000"),
        (f"inspect --watch {UNKNOWN}", "argument --watch: must be a number of seconds from 0.1 to 3600"),
        ("inspect --watch nan", "argument --watch: must be a number of seconds from 0.1 to 3600"),
        (f"inspect {UNKNOWN} --user {USER}", "give an ID, or --user and --agent, not both"),
        ("revoke", "name what is to end: an ID, --user, --agent, or the last two together"),
        (f"revoke {UNKNOWN} --agent {AGENT}", "give an ID, or --user and --agent, not both"),
        ("--workers 0", "argument --workers: must be a whole number from 1 to 64"),
        ("serve --workers 65", "argument --workers: must be a whole number from 1 to 64"),
        ("--workers 2 inspect", "--workers: only what serves has workers"),
        ("hash", "the following arguments are required: ID"),
        ("key", "the following arguments are required: NAME, --scopes"),
        ("key web --scopes reed", "argument --scopes: must be of read, write, admin, with commas between them"),
        ("key web: --scopes read", "argument NAME: must be up to 64 letters, digits and ._-"),
        ("destroy", "invalid choice: 'destroy'"),
    ],
)
def test_wrong_words_are_refused(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        arguments.parse(words.split())

    assert exit_.value.code == 2
    assert said in capsys.readouterr().err


def test_a_uuid_may_be_given_in_capitals() -> None:
    asked = arguments.parse(["inspect", "--user", USER.upper()])

    assert isinstance(asked, arguments.Inspect)
    assert asked.wanted.user_id == USER


def test_the_scopes_of_a_key_may_stand_in_any_order() -> None:
    asked = arguments.parse(["key", "web", "--scopes", "write,read"])

    assert asked == arguments.CreateKey("web", ("read", "write"))


@pytest.mark.parametrize("words", [[], ["serve"]])
def test_without_a_verb_it_serves(words: list[str]) -> None:
    assert arguments.parse(words) == arguments.Serve()


@pytest.mark.parametrize(
    "words", ["--workers 4", "serve --workers 4", "--workers 4 serve", "--workers 2 serve --workers 4"]
)
def test_it_serves_by_as_many_workers_as_it_is_told(words: str) -> None:
    assert arguments.parse(words.split()) == arguments.Serve(4)
