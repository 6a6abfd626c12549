"""Tokens: which are good, whom they name, and what that one may do."""

import base64
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from service.auth import tokens as tokens_module
from service.auth.jwks import ALGORITHMS
from service.auth.scopes import Caller
from service.auth.tokens import CACHE_SECONDS, LEEWAY_SECONDS, HmacKey, TokenCache, Tokens
from service.errors import Unauthorized
from service.settings.api_keys import Scope
from tests.auth.conftest import AUDIENCE, ISSUER, SECRET, claims_of, token_of
from tests.conftest import USER

PRIVATE = rsa.generate_private_key(65537, 2048)
OTHERS = rsa.generate_private_key(65537, 2048)
WEAK = rsa.generate_private_key(65537, 1024)
PUBLIC_PEM = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def part(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


class Published:
    """An issuer's public keys, as KeySet would have them."""

    algorithms = ALGORITHMS

    async def key(self, key_id: str | None) -> jwt.PyJWK:
        public = {"weak": WEAK}.get(key_id or "", PRIVATE).public_key()
        return jwt.PyJWK(jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True))

    async def aclose(self) -> None: ...


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(ISSUER, AUDIENCE, HmacKey(SECRET))


@pytest.fixture
def published() -> Tokens:
    return Tokens(ISSUER, AUDIENCE, Published())


async def test_a_user_reads_and_writes(tokens: Tokens) -> None:
    caller = await tokens.verify(token_of(USER))

    assert caller == Caller(USER, frozenset({"read", "write"}), USER, method="token")


async def test_a_user_may_be_named_in_capitals(tokens: Tokens) -> None:
    assert (await tokens.verify(token_of(USER.upper()))).user_id == USER


@pytest.mark.parametrize(
    ("scope", "had"),
    [
        ("read", {"read"}),
        ("openid read", {"read"}),
        ("write", {"read", "write"}),
        ("admin", {"read", "write"}),
        ("openid profile", set()),
        ("", set()),
        (["read"], set()),
    ],
)
async def test_a_scope_narrows_a_user_and_never_widens(tokens: Tokens, scope: object, had: set[Scope]) -> None:
    caller = await tokens.verify(token_of(USER, scope=scope))

    assert caller == Caller(USER, frozenset(had), USER, method="token")


@pytest.mark.parametrize(("scope", "had"), [("admin", {"read", "write", "admin"}), ("read", {"read"}), (None, set())])
async def test_who_is_no_user_may_do_what_the_scope_names(tokens: Tokens, scope: str | None, had: set[Scope]) -> None:
    caller = await tokens.verify(token_of("reports", scope=scope))

    assert caller == Caller("reports", frozenset(had), method="token")


async def test_a_token_may_be_signed_with_a_private_key(published: Tokens) -> None:
    caller = await published.verify(jwt.encode(claims_of(USER), PRIVATE, "RS256"))

    assert caller.user_id == USER


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://another.example"},
        {"iss": None},
        {"aud": "another"},
        {"aud": None},
        {"sub": None},
        {"sub": 7},
        {"exp": None},
        {"exp": "soon"},
        {"exp": float("inf")},
        {"nbf": float("-inf")},
        {"nbf": 4_102_444_800},
    ],
    ids=str,
)
async def test_a_token_must_be_of_the_issuer_for_this_audience_of_someone_and_with_an_end(
    tokens: Tokens, claims: dict[str, Any]
) -> None:
    unchecked = jwt.PyJWS().encode(json.dumps(claims_of(USER, **claims)).encode(), SECRET, "HS256")

    assert (await error_for_reply(tokens, unchecked)).facts == {"reason": "unknown"}


async def test_one_audience_among_several_will_do(tokens: Tokens) -> None:
    assert (await tokens.verify(token_of(USER, aud=["another", AUDIENCE]))).user_id == USER


async def test_a_token_that_has_expired_is_told_so(tokens: Tokens) -> None:
    refusal = await error_for_reply(tokens, token_of(USER, exp=time.time() - LEEWAY_SECONDS - 1))

    assert refusal.facts == {"reason": "expired"}


async def test_the_clocks_may_differ_by_a_little(tokens: Tokens) -> None:
    assert await tokens.verify(token_of(USER, exp=time.time() - LEEWAY_SECONDS / 2))


async def test_nothing_is_told_of_an_expired_token_that_is_not_the_issuers(tokens: Tokens) -> None:
    forged = jwt.encode(claims_of(USER, exp=1), "another-secret-of-at-least-32-bytes!", "HS256")

    assert (await error_for_reply(tokens, forged)).facts == {"reason": "unknown"}


@pytest.mark.parametrize(
    "forged",
    [
        jwt.encode(claims_of(USER), OTHERS, "RS256"),
        f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims_of(USER))}.",
        f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims_of(USER))}.",
        jwt.encode(claims_of(USER), SECRET, "HS256"),
        jwt.encode(claims_of(USER), PRIVATE, "PS256"),
    ],
    ids=["another key", "none", "no signature", "a secret", "another algorithm than the key's"],
)
async def test_a_token_that_the_issuers_key_did_not_sign_is_nobodys(published: Tokens, forged: str) -> None:
    assert (await error_for_reply(published, forged)).facts == {"reason": "unknown"}


async def test_the_public_key_is_no_secret_to_sign_with(published: Tokens) -> None:
    """The classic confusion: a library that lets the token choose would take the PEM for a secret."""
    forged = jwt.api_jws.PyJWS().encode(json.dumps(claims_of(USER)).encode(), PUBLIC_PEM.hex(), "HS256")

    assert (await error_for_reply(published, forged)).facts == {"reason": "unknown"}


@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
async def test_a_key_that_can_be_broken_is_refused(published: Tokens) -> None:
    weak = jwt.encode(claims_of(USER), WEAK, "RS256", {"kid": "weak"})

    assert (await error_for_reply(published, weak)).facts == {"reason": "unknown"}


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
async def test_a_secret_signs_by_one_algorithm(tokens: Tokens, algorithm: str) -> None:
    other = jwt.encode(claims_of(USER), SECRET, algorithm)

    assert (await error_for_reply(tokens, other)).facts == {"reason": "unknown"}


@pytest.mark.parametrize(
    "token",
    [
        "",
        "nonsense",
        "a.b.c",
        "...",
        "\udcff.\udcff.\udcff",
        "ключ",
        f"{part([])}.{part({})}.",
        f"{part('[' * 6000)}.{part({})}.",
        f"{part('9' * 6000)}.{part({})}.",
        f"{part({'alg': 'HS256', 'kid': 7})}.{part({})}.",
        f"{part({'alg': ['HS256']})}.{part({})}.",
        f"{part({'alg': 'HS256', 'crit': ['b64'], 'b64': False})}.{part({})}.",
    ],
    ids=range(12),
)
async def test_what_is_no_token_is_nobodys(tokens: Tokens, token: str) -> None:
    assert (await error_for_reply(tokens, token)).facts == {"reason": "unknown"}


class Counting(HmacKey):
    """Counts how often a token is judged."""

    judged = 0

    async def key(self, key_id: str | None) -> bytes:
        self.judged += 1
        return await super().key(key_id)


@pytest.fixture
def counting() -> Counting:
    return Counting(SECRET)


async def test_a_token_that_was_good_is_not_judged_again_at_once(counting: Counting) -> None:
    tokens = Tokens(ISSUER, AUDIENCE, counting)
    token, other = token_of(USER), token_of("reports", scope="read")

    callers = [tokens.find_caller(borne) or await tokens.verify(borne) for borne in (token, other, token, other)]

    assert [caller.name for caller in callers] == [USER, "reports"] * 2
    assert counting.judged == 2


@pytest.mark.parametrize(("left_seconds", "after_seconds"), [(3600, CACHE_SECONDS), (5, 5 + LEEWAY_SECONDS)])
async def test_it_is_judged_again_after_a_minute_or_where_it_may_have_expired(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch, left_seconds: float, after_seconds: float
) -> None:
    token, now = token_of(USER, exp=time.time() + left_seconds), time.monotonic()
    await tokens.verify(token)

    monkeypatch.setattr(time, "monotonic", lambda: now + after_seconds - 1)
    assert tokens.find_caller(token) is not None

    monkeypatch.setattr(time, "monotonic", lambda: now + after_seconds + 1)
    assert tokens.find_caller(token) is None


async def test_what_was_refused_is_judged_every_time(counting: Counting) -> None:
    tokens = Tokens(ISSUER, AUDIENCE, counting)
    expired = token_of(USER, exp=1)

    rejections = [await error_for_reply(tokens, expired) for _ in range(2)]

    assert [refusal.facts["reason"] for refusal in rejections] == ["expired"] * 2
    assert counting.judged == 2


def test_only_so_many_are_remembered_and_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "CACHE_SIZE", 2)
    found = TokenCache()
    caller = Caller(USER, frozenset(), USER)

    found.add("first", caller, 60)
    found.add("second", caller, 60)
    found.add("third", caller, 60)

    assert [found.find_caller(token) for token in ("first", "second", "third")] == [None, caller, caller]


async def error_for_reply(tokens: Tokens, token: str) -> Unauthorized:
    with pytest.raises(Unauthorized) as refusal:
        await tokens.verify(token)
    return refusal.value
