"""Keys and their entries: what is made is read again, and a wrong entry is named without what it holds."""

import re
from itertools import count

import pytest

from service.auth.api_keys import ApiKeys, new_key
from service.auth.scopes import Caller
from service.settings.api_keys import expand_scopes, parse_api_keys

GOOD = new_key("web", ["read", "write"])
OTHER = new_key("jobs", ["admin"])
DIGEST = GOOD.entry.rpartition(":")[2]


def test_a_new_key_is_known_by_its_entry() -> None:
    keys = ApiKeys(GOOD.entry)

    caller = keys.find_caller(GOOD.key)

    assert caller == Caller("web", expand_scopes(["write"]))


def test_an_entry_does_not_hold_its_key() -> None:
    assert GOOD.key not in GOOD.entry
    assert re.fullmatch(r"web:read,write:sha256:[0-9a-f]{64}", GOOD.entry)


def test_no_two_keys_are_alike() -> None:
    assert len({new_key("web", ["read"]).key for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "key",
    ["", "web", OTHER.key, GOOD.key[:-1], GOOD.key + "a", GOOD.entry, DIGEST, "\udcff", "ключ"],
    ids=count(1),
)
def test_another_key_is_nobodys(key: str) -> None:
    assert ApiKeys(GOOD.entry).find_caller(key) is None


@pytest.mark.parametrize(
    ("given", "had"),
    [("read", {"read"}), ("write", {"read", "write"}), ("admin", {"read", "write", "admin"})],
)
def test_a_scope_includes_those_before_it(given: str, had: set[str]) -> None:
    (caller,) = parse_api_keys(f"web:{given}:sha256:{DIGEST}")

    assert caller.scopes == had


def test_entries_stand_between_blanks_or_on_lines_with_comments() -> None:
    callers = parse_api_keys(f"# the front end\n{GOOD.entry}  # until May\n\n\t{OTHER.entry}\n")

    assert [caller.name for caller in callers] == ["web", "jobs"]


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ("", "must hold at least one entry"),
        ("# web", "must hold at least one entry"),
        (GOOD.key, "entry 1: must have the form name:scopes:sha256:digest"),
        (f"{OTHER.entry} web:{GOOD.key}", "entry 2: must have the form name:scopes:sha256:digest"),
        (f"w/b:read:sha256:{DIGEST}", "entry 1: must have the form name:scopes:sha256:digest"),
        (f"{'w' * 65}:read:sha256:{DIGEST}", "entry 1: must have the form name:scopes:sha256:digest"),
        (f"web:reed:sha256:{DIGEST}", "entry 1 (web): scopes must be a comma-separated list of read, write, admin"),
        (f"web::sha256:{DIGEST}", "entry 1 (web): scopes must be a comma-separated list of read, write, admin"),
        (f"web:read:md5:{DIGEST}", "entry 1 (web): must end in sha256: and 64 hex digits, not in the key itself"),
        (
            f"web:read:sha256:{GOOD.key}",
            "entry 1 (web): must end in sha256: and 64 hex digits, not in the key itself",
        ),
        (
            f"{GOOD.entry} web:read:sha256:{'0' * 64}",
            "entry 2 (web): an earlier entry has the same name or the same digest",
        ),
        (
            f"{GOOD.entry} again:read:sha256:{DIGEST}",
            "entry 2 (again): an earlier entry has the same name or the same digest",
        ),
    ],
    ids=count(1),
)
def test_a_wrong_entry_is_named_and_not_repeated(entries: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}") as refusal:
        parse_api_keys(entries)

    assert GOOD.key not in str(refusal.value)
    assert DIGEST not in str(refusal.value)
