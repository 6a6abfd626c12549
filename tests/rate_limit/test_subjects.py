"""The subjects of limits: addresses and callers as parts of keys."""

import pytest

from service.auth.scopes import Caller
from service.rate_limit.limiter import subject_of_address, subject_of_caller
from tests.conftest import USER


@pytest.mark.parametrize(
    ("address", "subject"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("unknown", "unknown"),
    ],
)
def test_an_ipv6_address_counts_as_its_network(address: str, subject: str) -> None:
    assert subject_of_address(address) == subject


@pytest.mark.parametrize("name", ["web", "a" * 64, USER, "auth0|5f7c8ec7c33c6c004bbafe82"])
def test_a_short_name_without_special_characters_is_kept(name: str) -> None:
    assert subject_of_caller(Caller(name, frozenset(), method="token")) == f"token:{name}"


@pytest.mark.parametrize("name", ["a" * 65, "}{", "a b", "ключ", "", "\ud800", "#", "a\nb"])
def test_other_names_are_hashed(name: str) -> None:
    subject = subject_of_caller(Caller(name, frozenset(), method="token"))

    assert subject.startswith("token:#")
    assert len(subject) == len("token:#") + 32
    assert subject != subject_of_caller(Caller(name + "x", frozenset(), method="token"))


def test_a_key_and_a_token_with_the_same_name_are_two_subjects() -> None:
    key, token = Caller("web", frozenset()), Caller("web", frozenset(), method="token")

    assert subject_of_caller(key) != subject_of_caller(token)
