"""Whom requests are counted for."""

import pytest

from service.auth.scopes import Caller
from service.rate_limit.limiter import subject_of_address, subject_of_caller
from tests.conftest import USER

NOBODY = frozenset[str]()


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
def test_what_is_short_and_safe_stands_for_itself(name: str) -> None:
    assert subject_of_caller(Caller(name, frozenset(), method="token")) == f"token:{name}"


@pytest.mark.parametrize("name", ["a" * 65, "}{", "a b", "ключ", "", "\ud800", "#", "a\nb"])
def test_what_is_long_or_odd_is_hashed(name: str) -> None:
    subject = subject_of_caller(Caller(name, frozenset(), method="token"))

    assert subject.startswith("token:#")
    assert len(subject) == len("token:#") + 32
    assert subject != subject_of_caller(Caller(name + "x", frozenset(), method="token"))


def test_a_key_and_a_token_of_one_name_are_two() -> None:
    assert subject_of_caller(Caller("web", frozenset())) != subject_of_caller(
        Caller("web", frozenset(), method="token")
    )
