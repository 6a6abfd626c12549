"""Session ids, and sessions as values."""

from typing import get_args
from uuid import RFC_4122, UUID

import pytest
from pydantic.alias_generators import to_camel

from service.sessions.scripts import FIELDS
from service.sessions.session import (
    Session,
    SessionFields,
    is_issued_id,
    minutes_from,
    new_session_id,
    session_from,
)
from service.settings.sessions import IdFormat, TimeoutConfig

MINUTE_MS = 60_000
AN_ID = "ab90c3cc-0d44-4b50-8888-8dd25736052a"

HASH = {
    b"agentId": b"3c90c3cc-0d44-4b50-8888-8dd25736052a",
    b"userId": b"7d444840-9dc0-11d1-b245-5ffdce74fad2",
    b"createdAt": b"1705314600000",
    b"lastActivity": b"1705314660000",
    b"renewedAt": b"1705314660000",
    b"expiresAt": b"1705316460000",
    b"timeoutMinutes": b"30",
    b"autoRenew": b"true",
    b"maxDurationMinutes": b"720",
    b"warningThresholdMinutes": b"5",
    b"renewalCount": b"3",
    b"revision": b"2",
    b"metadata": '{"größe":[]}'.encode(),
}


def session_with(remaining_ms: int) -> Session:
    """A session with a warning threshold of five minutes, and this remaining time."""
    return session_from(AN_ID, [*HASH.values()], int(HASH[b"expiresAt"]) - remaining_ms)


@pytest.mark.parametrize("id_format", get_args(IdFormat))
def test_a_new_id_is_recognized(id_format: IdFormat) -> None:
    assert is_issued_id(new_session_id(id_format))


@pytest.mark.parametrize(("id_format", "bits"), [("hex128", 128), ("hex256", 256)])
def test_hex_ids_consist_of_random_bits_of_the_system(
    monkeypatch: pytest.MonkeyPatch, id_format: IdFormat, bits: int
) -> None:
    monkeypatch.setattr("os.urandom", lambda number: bytes(range(number)))

    assert new_session_id(id_format) == bytes(range(bits // 8)).hex()


def test_uuids_are_random_and_have_every_variant_digit() -> None:
    ids = [UUID(new_session_id()) for _ in range(1000)]

    assert {(id_.version, id_.variant) for id_ in ids} == {(4, RFC_4122)}
    assert {str(id_)[19] for id_ in ids} == set("89ab")


@pytest.mark.parametrize("id_format", get_args(IdFormat))
def test_ids_are_unique(id_format: IdFormat) -> None:
    assert new_session_id(id_format) != new_session_id(id_format)


@pytest.mark.parametrize(
    "candidate",
    [
        AN_ID,
        "00000000-0000-4000-8000-000000000000",
        "ffffffff-ffff-4fff-bfff-ffffffffffff",
        "0" * 32,
        "f" * 64,
    ],
)
def test_random_uuids_and_lower_case_hex_digits_are_recognized(candidate: str) -> None:
    assert is_issued_id(candidate)


@pytest.mark.parametrize(
    "candidate",
    [
        "",
        AN_ID.upper(),
        f"{AN_ID}\n",
        f"\n{AN_ID}",
        f" {AN_ID}",
        f"{AN_ID}\0",
        f"{AN_ID}:tombstone",
        f"{AN_ID}}}x",
        f"{{{AN_ID}}}",
        f"urn:uuid:{AN_ID}",
        "ab}0c3cc-0d44-4b50-8888-8dd25736052a",
        AN_ID[:-1],
        AN_ID + "0",
        AN_ID.replace("-", "", 1),
        "a" * 31,
        "a" * 33,
        "a" * 36,
        "a" * 63,
        "a" * 65,
        "A" * 32,
        "g" * 64,
        AN_ID.replace("a", "\N{FULLWIDTH LATIN SMALL LETTER A}"),
        AN_ID.replace("0", "\N{ARABIC-INDIC DIGIT ZERO}"),
        AN_ID.replace("-4b50-", "-1b50-"),
        AN_ID.replace("-8888-", "-c888-"),
        "a" * 3000,
        AN_ID * 83,
        "*",
        "health",
    ],
)
def test_other_texts_are_not_recognized(candidate: str) -> None:
    assert not is_issued_id(candidate)


def test_a_session_is_built_from_its_hash() -> None:
    session = session_from(AN_ID, [*HASH.values()], 1705314700000)

    assert session.id == AN_ID
    assert session.agent_id == "3c90c3cc-0d44-4b50-8888-8dd25736052a"
    assert session.user_id == "7d444840-9dc0-11d1-b245-5ffdce74fad2"
    assert session.created_at_ms == 1705314600000
    assert session.last_activity_ms == 1705314660000
    assert session.expires_at_ms == 1705316460000
    assert session.timeout == TimeoutConfig(30, True, 720, 5)
    assert session.renewal_count == 3
    assert session.metadata == '{"größe":[]}'.encode()
    assert session.read_at_ms == 1705314700000


def test_auto_renew_false_is_read() -> None:
    assert session_from(AN_ID, [*(HASH | {b"autoRenew": b"false"}).values()], 1705314700000).timeout.auto_renew is False


def test_session_fields_are_in_the_order_of_the_prelude() -> None:
    assert tuple(to_camel(name).encode() for name in SessionFields._fields) == FIELDS


def test_whole_minutes_are_integers() -> None:
    assert repr(minutes_from(b"30")) == "30"


def test_fractions_of_minutes_are_floats() -> None:
    assert repr(minutes_from(b"0.5")) == "0.5"


def test_the_remaining_time_is_from_the_read_to_the_expiry() -> None:
    assert session_with(1234).time_remaining_ms == 1234


@pytest.mark.parametrize("remaining_ms", [5 * MINUTE_MS, 5 * MINUTE_MS - 1, 1])
def test_a_session_within_its_warning_threshold_is_near_expiration(remaining_ms: int) -> None:
    assert session_with(remaining_ms).is_near_expiration is True


@pytest.mark.parametrize("remaining_ms", [5 * MINUTE_MS + 1, 30 * MINUTE_MS])
def test_a_session_before_its_warning_threshold_is_not_near_expiration(remaining_ms: int) -> None:
    assert session_with(remaining_ms).is_near_expiration is False


@pytest.mark.parametrize("remaining_ms", [0, -1, -30 * MINUTE_MS])
def test_an_expired_session_is_not_near_expiration(remaining_ms: int) -> None:
    assert session_with(remaining_ms).is_near_expiration is False


def test_a_warning_threshold_may_be_a_fraction_of_a_minute() -> None:
    half_a_minute = HASH | {b"warningThresholdMinutes": b"0.5"}

    assert session_from(AN_ID, [*half_a_minute.values()], 1705316460000 - 30_000).is_near_expiration is True
    assert session_from(AN_ID, [*half_a_minute.values()], 1705316460000 - 30_001).is_near_expiration is False
