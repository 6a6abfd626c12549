"""A file of keys: read again when it changes, and never worse than it was."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.auth import api_keys
from service.auth.api_keys import ApiKeyFile, new_key

OLD = new_key("old", ["read"])
NEW = new_key("new", ["read"])


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a file with the old key, looked at whenever someone asks."""
    monkeypatch.setattr(api_keys, "CHECK_INTERVAL_SECONDS", 0)
    path = tmp_path / "keys"
    path.write_text(OLD.entry)
    return path


def replace_by(path: Path, text: str) -> None:
    """As a careful writer does it: in one go, with another file."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


def knows(keys: ApiKeyFile) -> list[str]:
    return [key.entry.partition(":")[0] for key in (OLD, NEW) if keys.find_caller(key.key) is not None]


def test_its_keys_are_known(path: Path) -> None:
    assert knows(ApiKeyFile(path)) == ["old"]


def test_what_is_written_into_it_is_known_from_then_on(path: Path) -> None:
    keys = ApiKeyFile(path)

    replace_by(path, NEW.entry)

    assert knows(keys) == ["new"]


def test_a_link_that_leads_elsewhere_is_a_change(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    keys = ApiKeyFile(link)
    (tmp_path / "other").write_text(NEW.entry)

    link.unlink()
    link.symlink_to(tmp_path / "other")

    assert knows(keys) == ["new"]


def test_it_is_looked_at_once_a_second_at_most(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "CHECK_INTERVAL_SECONDS", 1)
    keys = ApiKeyFile(path)
    replace_by(path, NEW.entry)
    now = time.monotonic()

    monkeypatch.setattr(time, "monotonic", lambda: now + 0.5)
    assert knows(keys) == ["old"]

    monkeypatch.setattr(time, "monotonic", lambda: now + 1.5)
    assert knows(keys) == ["new"]


def test_it_is_not_read_again_where_it_has_not_changed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ApiKeyFile(path)
    monkeypatch.setattr(Path, "read_text", lambda _: pytest.fail("it was read"))

    assert knows(keys) == ["old"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: replace_by(path, f"web:read:sha256:{NEW.key}"),
        lambda path: replace_by(path, ""),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.unlink(),
    ],
    ids=["wrong", "empty", "not text", "gone"],
)
def test_a_broken_file_leaves_the_old_keys_in_force_and_is_told_once(
    path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]
) -> None:
    keys = ApiKeyFile(path)

    spoil(path)

    assert [knows(keys) for _ in range(3)] == [["old"]] * 3
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert caplog.messages[0].startswith("SESSION_API_KEYS_FILE: the previous keys stay valid: ")
    assert NEW.key not in caplog.text


def test_a_file_that_was_broken_is_read_again_when_it_is_whole(path: Path) -> None:
    keys = ApiKeyFile(path)
    replace_by(path, "nonsense")
    knows(keys)

    replace_by(path, NEW.entry)

    assert knows(keys) == ["new"]


@pytest.mark.parametrize(("text", "error"), [("nonsense", ValueError), (None, OSError)])
def test_at_the_start_it_must_be_whole(path: Path, text: str | None, error: type[Exception]) -> None:
    os.unlink(path) if text is None else path.write_text(text)

    with pytest.raises(error):
        ApiKeyFile(path)
