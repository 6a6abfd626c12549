"""API keys, their entries, and the key file."""

import logging
import os
import re
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from threading import Event
from unittest.mock import Mock

import pytest

from service.auth import api_keys
from service.auth.api_keys import ApiKeyFile, ApiKeys, new_key
from service.auth.scopes import Caller
from service.settings.api_keys import expand_scopes, parse_api_keys
from tests.conftest import AGENT

KEY = new_key("web", ["read", "write"])
OTHER_KEY = new_key("jobs", ["admin"])
DIGEST = KEY.entry.rpartition(":")[2]
OLD = new_key("old", ["read"])
NEW = new_key("new", ["read"])


def test_a_key_is_found_by_its_entry() -> None:
    assert ApiKeys(KEY.entry).find_caller(KEY.key) == Caller("web", expand_scopes(["write"]))


def test_an_entry_contains_the_digest_of_the_key_only() -> None:
    assert KEY.key not in KEY.entry
    assert re.fullmatch(r"web:read,write:sha256:[0-9a-f]{64}", KEY.entry)


def test_new_keys_are_unique() -> None:
    assert len({new_key("web", ["read"]).key for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "key",
    ["", "web", OTHER_KEY.key, KEY.key[:-1], KEY.key + "a", KEY.entry, DIGEST, "\udcff", "ключ"],
    ids=count(1),
)
def test_an_unknown_key_has_no_caller(key: str) -> None:
    assert ApiKeys(KEY.entry).find_caller(key) is None


# Entries


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [("read", {"read"}), ("write", {"read", "write"}), ("admin", {"read", "write", "admin"})],
)
def test_a_scope_includes_the_scopes_before_it(scope: str, scopes: set[str]) -> None:
    (entry,) = parse_api_keys(f"web:{scope}:sha256:{DIGEST}")

    assert entry.grant.scopes == scopes


def test_entries_are_separated_by_whitespace_and_may_have_comments() -> None:
    entries = parse_api_keys(f"# the front end\n{KEY.entry}  # until May\n\n\t{OTHER_KEY.entry}\n")

    assert [entry.name for entry in entries] == ["web", "jobs"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("", "must hold at least one entry"),
        ("# web", "must hold at least one entry"),
        (KEY.key, "entry 1: must have the form name:scopes:sha256:digest"),
        (f"{OTHER_KEY.entry} web:{KEY.key}", "entry 2: must have the form name:scopes:sha256:digest"),
        (f"w/b:read:sha256:{DIGEST}", "entry 1: must have the form name:scopes:sha256:digest"),
        (f"{'w' * 65}:read:sha256:{DIGEST}", "entry 1: must have the form name:scopes:sha256:digest"),
        (f"web:reed:sha256:{DIGEST}", "entry 1 (web): scopes must be a comma-separated list of read, write, admin"),
        (f"web:agent:x:sha256:{DIGEST}", "entry 1 (web): must be a UUID in the 36-character form"),
        (f"web:read,agent:{AGENT}:sha256:{DIGEST}", "entry 1 (web): agent:<agentId> cannot be combined with other"),
        (f"web::sha256:{DIGEST}", "entry 1: must have the form name:scopes:sha256:digest"),
        (f"web:read:md5:{DIGEST}", "entry 1: must have the form name:scopes:sha256:digest"),
        (f"web:read:sha256:{KEY.key}", "entry 1 (web): must end in sha256: and 64 hex digits, not in the key itself"),
        (
            f"{KEY.entry} web:read:sha256:{'0' * 64}",
            "entry 2 (web): an earlier entry has the same name or the same digest",
        ),
        (
            f"{KEY.entry} again:read:sha256:{DIGEST}",
            "entry 2 (again): an earlier entry has the same name or the same digest",
        ),
    ],
    ids=count(1),
)
def test_the_error_of_a_wrong_entry_does_not_repeat_its_digest(entries: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}") as error:
        parse_api_keys(entries)

    assert KEY.key not in str(error.value)
    assert DIGEST not in str(error.value)


# The key file


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the old key. It is checked often."""
    monkeypatch.setattr(api_keys, "CHECK_INTERVAL_SECONDS", 0.001)
    path = tmp_path / "keys"
    path.write_text(OLD.entry)
    return path


def replace(path: Path, text: str) -> None:
    """Replace the file atomically."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


def valid_names(keys: ApiKeyFile) -> list[str]:
    """Check the file, and return the names of the keys that are valid now."""
    keys.reload_if_changed()
    return [key.entry.partition(":")[0] for key in (OLD, NEW) if keys.find_caller(key.key) is not None]


def test_the_keys_of_a_file_are_valid(path: Path) -> None:
    assert valid_names(ApiKeyFile(path)) == ["old"]


def test_a_changed_file_replaces_the_keys(path: Path) -> None:
    keys = ApiKeyFile(path)

    replace(path, NEW.entry)

    assert valid_names(keys) == ["new"]


def test_a_link_to_another_file_replaces_the_keys(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    keys = ApiKeyFile(link)
    (tmp_path / "other").write_text(NEW.entry)

    link.unlink()
    link.symlink_to(tmp_path / "other")

    assert valid_names(keys) == ["new"]


@pytest.fixture
def watched_keys(path: Path) -> Iterator[ApiKeyFile]:
    """The keys of the file, which a thread watches."""
    keys = ApiKeyFile(path)
    keys.start()
    yield keys
    keys.close()


def test_a_change_is_noticed_without_a_request(path: Path, watched_keys: ApiKeyFile) -> None:
    replace(path, NEW.entry)

    while watched_keys.find_caller(NEW.key) is None:
        continue
    assert watched_keys.find_caller(OLD.key) is None


def test_changes_are_noticed_after_an_unexpected_error(
    path: Path, watched_keys: ApiKeyFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reload_if_changed = ApiKeyFile.reload_if_changed
    monkeypatch.setattr(ApiKeyFile, "reload_if_changed", Mock(side_effect=TypeError("an unexpected state")))
    while not caplog.messages:
        continue
    monkeypatch.setattr(ApiKeyFile, "reload_if_changed", reload_if_changed)

    replace(path, NEW.entry)

    while watched_keys.find_caller(NEW.key) is None:
        continue
    assert caplog.messages[0] == "SESSION_API_KEYS_FILE: the check for changes failed and continues"


def test_requests_do_not_wait_for_a_file_system_that_does_not_respond(
    path: Path, watched_keys: ApiKeyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_waiting, may_continue = Event(), Event()

    def wait(_: Path) -> str:
        is_waiting.set()
        may_continue.wait()
        return OLD.entry

    monkeypatch.setattr(api_keys, "_read", wait)
    replace(path, NEW.entry)
    is_waiting.wait()

    assert watched_keys.find_caller(OLD.key) is not None
    may_continue.set()


def test_an_unchanged_file_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ApiKeyFile(path)
    monkeypatch.setattr(api_keys, "_read", lambda _: pytest.fail("the file was read"))

    assert valid_names(keys) == ["old"]


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: replace(path, f"web:read:sha256:{NEW.key}"),
        lambda path: replace(path, ""),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.unlink(),
        replace_by_pipe,
    ],
    ids=["wrong entry", "empty", "binary", "missing", "pipe"],
)
def test_an_invalid_file_leaves_the_previous_keys_valid_and_is_logged_once(
    path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], object]
) -> None:
    keys = ApiKeyFile(path)

    damage(path)

    assert [valid_names(keys) for _ in range(3)] == [["old"]] * 3
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert caplog.messages[0].startswith("SESSION_API_KEYS_FILE: the previous keys stay valid: ")
    assert NEW.key not in caplog.text


def test_a_corrected_file_is_loaded(path: Path) -> None:
    keys = ApiKeyFile(path)
    replace(path, "nonsense")
    valid_names(keys)

    replace(path, NEW.entry)

    assert valid_names(keys) == ["new"]


def test_a_wrong_entry_in_the_file_is_an_error_at_the_start(path: Path) -> None:
    path.write_text("nonsense")

    with pytest.raises(ValueError, match="must have the form name:scopes:sha256:digest"):
        ApiKeyFile(path)


def test_a_missing_file_is_an_error_at_the_start(path: Path) -> None:
    path.unlink()

    with pytest.raises(OSError, match="No such file or directory"):
        ApiKeyFile(path)


@pytest.mark.parametrize("create", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_a_file_that_is_not_regular_is_an_error_at_the_start(path: Path, create: Callable[[Path], None]) -> None:
    path.unlink()
    create(path)

    with pytest.raises(OSError, match=r"must be a regular file|Is a directory"):
        ApiKeyFile(path)
