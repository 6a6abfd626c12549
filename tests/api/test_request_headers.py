"""Parsing of credentials, Idempotency-Key and If-Match."""

from typing import Any

import pytest
from multidict import CIMultiDict

from service.api.request_headers import credential_of, expected_revisions_of, idempotency_key_of
from service.errors import InvalidRequest, Unauthorized


class FakeRequest(dict[object, object]):
    """A request with these lines of one header, and without a caller."""

    def __init__(self, name: str, *lines: str) -> None:
        super().__init__()
        self.headers = CIMultiDict([(name, line) for line in lines])


def parse_key(*lines: str) -> str | None:
    request: Any = FakeRequest("Idempotency-Key", *lines)
    key = idempotency_key_of(request)
    return key and key.key


def parse_tags(*lines: str) -> object:
    request: Any = FakeRequest("If-Match", *lines)
    return expected_revisions_of(request)


def parse_credential(name: str, line: str) -> str:
    request: Any = FakeRequest(name, line)
    return credential_of(request)


# Credentials


@pytest.mark.parametrize(
    ("name", "line", "credential"),
    [
        ("X-API-KEY", "key", "key"),
        ("x-api-key", "", ""),
        ("Authorization", "Bearer token", "token"),
        ("Authorization", "BEARER  token ", "token"),
        ("Authorization", "Bearer ", ""),
    ],
)
def test_a_credential_is_an_api_key_or_a_bearer_token(name: str, line: str, credential: str) -> None:
    assert parse_credential(name, line) == credential


@pytest.mark.parametrize("line", ["", "token", "Basic token", "Bearertoken"])
def test_without_a_bearer_token_the_credential_is_missing(line: str) -> None:
    with pytest.raises(Unauthorized) as error:
        parse_credential("Authorization", line)

    assert error.value.facts == {"reason": "missing"}


# Idempotency-Key


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("a", "a"),
        ('"a"', "a"),
        ("a" * 255, "a" * 255),
        (f'"{"a" * 255}"', "a" * 255),
        ("!#$%&'()*+-./:;<=>?@[\\]^_`{|}~", "!#$%&'()*+-./:;<=>?@[\\]^_`{|}~"),
        (r'"a\"b\\c,d"', r'a"b\c,d'),
    ],
)
def test_a_key_may_contain_all_visible_characters(line: str, key: str) -> None:
    assert parse_key(line) == key


def test_without_the_header_there_is_no_key() -> None:
    assert parse_key() is None


@pytest.mark.parametrize(
    "lines",
    [
        ("a", "b"),
        ("a", "a"),
        ("",),
        ("a b",),
        ("a,b",),
        ('"',),
        ('""',),
        ('"a',),
        ('a"',),
        ('"a";b=1',),
        ("a" * 256,),
        (f'"{"a" * 256}"',),
        ("\x7f",),
        ("a\n",),
        ("é",),
        (r'"a\b"',),
    ],
)
def test_a_malformed_key_is_rejected(lines: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest) as error:
        parse_key(*lines)

    assert list(error.value.facts["fields"]) == ["Idempotency-Key"]


# If-Match


@pytest.mark.parametrize("lines", [(), ("*",), (" * ",)])
def test_a_missing_header_and_an_asterisk_accept_any_revision(lines: tuple[str, ...]) -> None:
    assert parse_tags(*lines) is None


@pytest.mark.parametrize(
    ("lines", "revisions"),
    [
        (['"7"'], {b"7"}),
        (['"7", "8"'], {b"7", b"8"}),
        (['"7"', '"8"'], {b"7", b"8"}),
        ([',"7" ,\t,"8",'], {b"7", b"8"}),
        (['W/"7", "8"'], {b"8"}),
        (['W/"7"'], set()),
        (['""', '"07"', '"-7"', '"a"', '"\N{ARABIC-INDIC DIGIT SEVEN}"', '"\udcff"', '"' + "7" * 17 + '"'], set()),
    ],
)
def test_only_strong_tags_that_can_be_revisions_count(lines: list[str], revisions: set[bytes]) -> None:
    assert parse_tags(*lines) == revisions


@pytest.mark.parametrize(
    "line",
    [
        *("1", "", "'1'", '"1', '"1" "2"', '*, "1"', 'w/"1"', '"1 "', '"\x7f"', '"\x00"', '"7"\n', '"7";"8"'),
        *("," * 8000, '"7", ' * 1600 + "8"),
    ],
)
def test_a_malformed_list_of_tags_is_rejected(line: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        parse_tags(line)

    assert list(error.value.facts["fields"]) == ["If-Match"]
