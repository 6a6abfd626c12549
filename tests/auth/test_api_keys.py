"""Keys and their entries: what is made is read again, and a wrong entry is named without what it holds."""

import re
from itertools import count

import pytest

from service.auth.api_keys import ApiKeys, new_key, read_entries
from service.auth.scopes import Caller, including

GOOD = new_key("web", ["read", "write"])
OTHER = new_key("jobs", ["admin"])
DIGEST = GOOD.entry.rpartition(":")[2]


def test_a_new_key_is_known_by_its_entry() -> None:
    keys = ApiKeys(read_entries(GOOD.entry))

    caller = keys.caller(GOOD.key)

    assert caller == Caller("web", including(["write"]))


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
    assert ApiKeys(read_entries(GOOD.entry)).caller(key) is None


@pytest.mark.parametrize(
    ("given", "had"),
    [("read", {"read"}), ("write", {"read", "write"}), ("admin", {"read", "write", "admin"})],
)
def test_a_scope_includes_those_before_it(given: str, had: set[str]) -> None:
    (caller,) = read_entries(f"web:{given}:sha256:{DIGEST}").values()

    assert caller.scopes == had


def test_entries_stand_between_blanks_or_on_lines_with_comments() -> None:
    callers = read_entries(f"# the front end\n{GOOD.entry}  # until May\n\n\t{OTHER.entry}\n")

    assert [caller.name for caller in callers.values()] == ["web", "jobs"]


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ("", "holds no key"),
        ("# web", "holds no key"),
        (GOOD.key, "entry 1: must be name:scopes:sha256:digest"),
        (f"{OTHER.entry} web:{GOOD.key}", "entry 2: must be name:scopes:sha256:digest"),
        (f"w/b:read:sha256:{DIGEST}", "entry 1: must be name:scopes:sha256:digest"),
        (f"{'w' * 65}:read:sha256:{DIGEST}", "entry 1: must be name:scopes:sha256:digest"),
        (f"web:reed:sha256:{DIGEST}", "entry 1 (web): its scopes must be of read, write, admin"),
        (f"web::sha256:{DIGEST}", "entry 1 (web): its scopes must be of read, write, admin"),
        (f"web:read:md5:{DIGEST}", "entry 1 (web): its hash must be sha256: and 64 hex digits, not the key itself"),
        (
            f"web:read:sha256:{GOOD.key}",
            "entry 1 (web): its hash must be sha256: and 64 hex digits, not the key itself",
        ),
        (f"{GOOD.entry} web:read:sha256:{'0' * 64}", "entry 2 (web): its name or its hash is that of an entry before"),
        (
            f"{GOOD.entry} again:read:sha256:{DIGEST}",
            "entry 2 (again): its name or its hash is that of an entry before",
        ),
    ],
    ids=count(1),
)
def test_a_wrong_entry_is_named_and_not_repeated(entries: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}") as refusal:
        read_entries(entries)

    assert GOOD.key not in str(refusal.value)
    assert DIGEST not in str(refusal.value)
