"""The secret of the replicas, as one process has it: what is hashed by it, and by nothing else."""

import hashlib

import pytest

from service.errors import StoreUnavailable
from service.shared_secret import HIDDEN, SharedSecret

DIGITS, OTHER_DIGITS = "0f" * 32, "f0" * 32
AN_ID = "4716d2ea-673d-47d0-b1bd-33202db7411b"


def knowing(digits: str) -> SharedSecret:
    secret = SharedSecret()
    secret.learn(digits)
    return secret


def test_an_id_is_hashed_the_same_wherever_the_secret_is() -> None:
    expected = hashlib.blake2b(AN_ID.encode(), digest_size=6, key=bytes.fromhex(DIGITS), person=b"id").hexdigest()

    assert [knowing(DIGITS).hashed(AN_ID), knowing(DIGITS).hashed(AN_ID)] == [expected, expected]


def test_and_otherwise_where_that_is_another() -> None:
    assert knowing(DIGITS).hashed(AN_ID) != knowing(OTHER_DIGITS).hashed(AN_ID)


def test_before_it_is_known_no_id_is_told() -> None:
    assert SharedSecret().hashed(AN_ID) == HIDDEN


def test_another_that_is_learnt_takes_its_place() -> None:
    secret = knowing(DIGITS)
    secret.learn(OTHER_DIGITS)

    assert secret.hashed(AN_ID) == knowing(OTHER_DIGITS).hashed(AN_ID)


@pytest.mark.parametrize("digits", ["", "0f" * 31, "0f" * 33, "0F" * 32, "xy" * 32])
def test_what_is_no_secret_is_not_learnt(digits: str) -> None:
    secret = knowing(DIGITS)

    with pytest.raises(ValueError, match="must be 64 hex digits"):
        secret.learn(digits)

    assert secret.hashed(AN_ID) == knowing(DIGITS).hashed(AN_ID)


def test_digests_for_different_ends_have_nothing_in_common() -> None:
    secret = knowing(DIGITS)

    digests = {secret.digest(AN_ID, person=b"one"), secret.digest(AN_ID, person=b"another")}

    assert len(digests) == 2
    assert not any(digest.startswith(secret.hashed(AN_ID)) for digest in digests)


def test_before_it_is_known_there_is_no_digest() -> None:
    with pytest.raises(StoreUnavailable):
        SharedSecret().digest(AN_ID, person=b"one")
