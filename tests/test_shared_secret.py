"""The shared secret hashes ids for logs, and other values for Redis."""

import hashlib

import pytest

from service.errors import StoreUnavailable
from service.shared_secret import HIDDEN, SharedSecret

DIGITS, OTHER_DIGITS = "0f" * 32, "f0" * 32
AN_ID = "4716d2ea-673d-47d0-b1bd-33202db7411b"


def loaded(digits: str) -> SharedSecret:
    secret = SharedSecret()
    secret.load(digits)
    return secret


def test_an_id_has_the_same_hash_in_every_process() -> None:
    expected = hashlib.blake2b(AN_ID.encode(), digest_size=6, key=bytes.fromhex(DIGITS), person=b"id").hexdigest()

    assert [loaded(DIGITS).hash_id(AN_ID), loaded(DIGITS).hash_id(AN_ID)] == [expected, expected]


def test_the_hash_does_not_depend_on_the_case_of_an_id() -> None:
    assert loaded(DIGITS).hash_id(AN_ID.upper()) == loaded(DIGITS).hash_id(AN_ID)


def test_an_id_has_another_hash_with_another_secret() -> None:
    assert loaded(DIGITS).hash_id(AN_ID) != loaded(OTHER_DIGITS).hash_id(AN_ID)


def test_ids_are_hidden_until_the_secret_is_loaded() -> None:
    assert SharedSecret().hash_id(AN_ID) == HIDDEN


def test_a_secret_can_be_replaced() -> None:
    secret = loaded(DIGITS)
    secret.load(OTHER_DIGITS)

    assert secret.hash_id(AN_ID) == loaded(OTHER_DIGITS).hash_id(AN_ID)


@pytest.mark.parametrize("digits", ["", "0f" * 31, "0f" * 33, "0F" * 32, "xy" * 32])
def test_an_invalid_secret_is_rejected(digits: str) -> None:
    secret = loaded(DIGITS)

    with pytest.raises(ValueError, match="must be 64 hex digits"):
        secret.load(digits)

    assert secret.hash_id(AN_ID) == loaded(DIGITS).hash_id(AN_ID)


def test_digests_for_different_purposes_are_unrelated() -> None:
    secret = loaded(DIGITS)

    digests = {secret.digest(AN_ID, purpose=b"one"), secret.digest(AN_ID, purpose=b"another")}

    assert len(digests) == 2
    assert not any(digest.startswith(secret.hash_id(AN_ID)) for digest in digests)


def test_there_is_no_digest_until_the_secret_is_loaded() -> None:
    with pytest.raises(StoreUnavailable):
        SharedSecret().digest(AN_ID, purpose=b"one")
