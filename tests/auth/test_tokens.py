"""Verification of tokens, their callers, and the token cache."""

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
from tests.auth.conftest import AUDIENCE, ISSUER, SECRET, new_token, valid_claims
from tests.conftest import USER

PRIVATE_KEY = rsa.generate_private_key(65537, 2048)
OTHER_PRIVATE_KEY = rsa.generate_private_key(65537, 2048)
WEAK_PRIVATE_KEY = rsa.generate_private_key(65537, 1024)
PUBLIC_PEM = PRIVATE_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
OTHER_SECRET = "another-secret-of-at-least-32-bytes!"


class PublicKeys:
    """The public keys of an issuer. The key with the id `weak` is too short."""

    algorithms = ALGORITHMS

    async def key(self, key_id: str | None, _: str) -> jwt.PyJWK:
        private_key = WEAK_PRIVATE_KEY if key_id == "weak" else PRIVATE_KEY
        return jwt.PyJWK(jwt.algorithms.RSAAlgorithm.to_jwk(private_key.public_key(), as_dict=True))

    async def aclose(self) -> None: ...


class CountingKey(HmacKey):
    """Counts the verifications."""

    verifications = 0

    async def key(self, *arguments: object) -> bytes:
        self.verifications += 1
        return await super().key(*arguments)


@pytest.fixture
def counting_key() -> CountingKey:
    return CountingKey(SECRET)


@pytest.fixture
def tokens() -> Tokens:
    """Accepts tokens with a shared secret."""
    return Tokens(ISSUER, AUDIENCE, HmacKey(SECRET))


@pytest.fixture
def signed_tokens() -> Tokens:
    """Accepts tokens with a private key."""
    return Tokens(ISSUER, AUDIENCE, PublicKeys())


async def rejection_reason(tokens: Tokens, token: str) -> str:
    with pytest.raises(Unauthorized) as error:
        await tokens.verify(token)
    reason: str = error.value.facts["reason"]
    return reason


def encode(value: Any) -> str:
    """Return a part of a token."""
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


# Callers


async def test_a_user_may_read_and_write(tokens: Tokens) -> None:
    caller = await tokens.verify(new_token(USER))

    assert caller == Caller(USER, frozenset({"read", "write"}), USER, method="token")


@pytest.mark.parametrize(
    "subject",
    [
        USER.upper(),
        USER.replace("-", ""),
        f"{{{USER}}}",
        f"urn:uuid:{USER}",
        f"URN:UUID:{USER.upper()}",
        f"{USER} ",
        f"\n{USER}",
    ],
)
async def test_a_uuid_in_any_notation_is_a_user(tokens: Tokens, subject: str) -> None:
    caller = await tokens.verify(new_token(subject, scope="read"))

    assert caller == Caller(USER, frozenset({"read"}), USER, method="token")


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        ("read", {"read"}),
        ("openid read", {"read"}),
        ("write", {"read", "write"}),
        ("admin", {"read", "write"}),
        ("openid profile", set()),
        ("", set()),
        (["read"], set()),
        ({"read": 1}, set()),
        (1, set()),
    ],
)
async def test_the_scope_claim_restricts_a_user(tokens: Tokens, scope: object, scopes: set[Scope]) -> None:
    caller = await tokens.verify(new_token(USER, scope=scope))

    assert caller == Caller(USER, frozenset(scopes), USER, method="token")


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        ("admin", {"read", "write", "admin"}),
        ("read", {"read"}),
        (None, set()),
        (["admin"], set()),
        (["x admin y"], set()),
        ({"x": " admin "}, set()),
    ],
)
async def test_a_service_has_the_scopes_of_its_claim(tokens: Tokens, scope: object, scopes: set[Scope]) -> None:
    caller = await tokens.verify(new_token("reports", scope=scope))

    assert caller == Caller("reports", frozenset(scopes), method="token")


async def test_a_token_may_be_signed_with_a_private_key(signed_tokens: Tokens) -> None:
    caller = await signed_tokens.verify(jwt.encode(valid_claims(USER), PRIVATE_KEY, "RS256"))

    assert caller.user_id == USER


async def test_the_audience_may_be_one_of_several(tokens: Tokens) -> None:
    assert (await tokens.verify(new_token(USER, aud=["another", AUDIENCE]))).user_id == USER


# Rejected tokens


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
        {"exp": float("nan")},
        {"exp": 10**400},
        {"nbf": float("inf")},
        {"nbf": float("-inf")},
        {"nbf": 4_102_444_800},
    ],
    ids=str,
)
async def test_a_token_with_a_wrong_or_missing_claim_is_unknown(tokens: Tokens, claims: dict[str, Any]) -> None:
    unchecked = jwt.PyJWS().encode(json.dumps(valid_claims(USER, **claims)).encode(), SECRET, "HS256")

    assert await rejection_reason(tokens, unchecked) == "unknown"


async def test_an_expired_token_is_reported_as_expired(tokens: Tokens) -> None:
    token = new_token(USER, exp=time.time() - LEEWAY_SECONDS - 1)

    assert await rejection_reason(tokens, token) == "expired"


async def test_the_expiry_has_a_tolerance(tokens: Tokens) -> None:
    assert await tokens.verify(new_token(USER, exp=time.time() - LEEWAY_SECONDS / 2))


@pytest.mark.parametrize("seconds_from_now", [30, 3600, float("inf")])
async def test_the_time_of_issue_does_not_matter(tokens: Tokens, seconds_from_now: float) -> None:
    claims = valid_claims(USER, iat=time.time() + seconds_from_now)
    token = jwt.PyJWS().encode(json.dumps(claims).encode(), SECRET, "HS256")

    assert (await tokens.verify(token)).user_id == USER


async def test_an_expired_token_of_another_issuer_is_unknown(tokens: Tokens) -> None:
    assert await rejection_reason(tokens, jwt.encode(valid_claims(USER, exp=1), OTHER_SECRET, "HS256")) == "unknown"


@pytest.mark.parametrize(
    "token",
    [
        jwt.encode(valid_claims(USER), OTHER_PRIVATE_KEY, "RS256"),
        f"{encode({'alg': 'none', 'typ': 'JWT'})}.{encode(valid_claims(USER))}.",
        f"{encode({'alg': 'HS256', 'typ': 'JWT'})}.{encode(valid_claims(USER))}.",
        jwt.encode(valid_claims(USER), SECRET, "HS256"),
        jwt.encode(valid_claims(USER), PRIVATE_KEY, "PS256"),
    ],
    ids=["another key", "algorithm none", "no signature", "a secret", "another algorithm"],
)
async def test_a_token_that_the_key_did_not_sign_is_unknown(signed_tokens: Tokens, token: str) -> None:
    assert await rejection_reason(signed_tokens, token) == "unknown"


async def test_a_public_key_does_not_verify_an_hmac(signed_tokens: Tokens) -> None:
    """Algorithm confusion: a verifier that accepts the token's algorithm would use the PEM as a secret."""
    token = jwt.api_jws.PyJWS().encode(json.dumps(valid_claims(USER)).encode(), PUBLIC_PEM.hex(), "HS256")

    assert await rejection_reason(signed_tokens, token) == "unknown"


@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
async def test_a_key_that_is_too_short_is_rejected(signed_tokens: Tokens) -> None:
    token = jwt.encode(valid_claims(USER), WEAK_PRIVATE_KEY, "RS256", {"kid": "weak"})

    assert await rejection_reason(signed_tokens, token) == "unknown"


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
async def test_a_secret_has_a_single_algorithm(tokens: Tokens, algorithm: str) -> None:
    assert await rejection_reason(tokens, jwt.encode(valid_claims(USER), SECRET, algorithm)) == "unknown"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "nonsense",
        "a.b.c",
        "...",
        "\udcff.\udcff.\udcff",
        "ключ",
        f"{encode([])}.{encode({})}.",
        f"{encode('[' * 6000)}.{encode({})}.",
        f"{encode('9' * 6000)}.{encode({})}.",
        f"{encode({'alg': 'HS256', 'kid': 7})}.{encode({})}.",
        f"{encode({'alg': ['HS256']})}.{encode({})}.",
        f"{encode({'alg': 'HS256', 'crit': ['b64'], 'b64': False})}.{encode({})}.",
    ],
    ids=range(12),
)
async def test_a_malformed_token_is_unknown(tokens: Tokens, token: str) -> None:
    assert await rejection_reason(tokens, token) == "unknown"


# The cache


async def test_a_valid_token_is_verified_once(counting_key: CountingKey) -> None:
    tokens = Tokens(ISSUER, AUDIENCE, counting_key)
    token, other_token = new_token(USER), new_token("reports", scope="read")

    callers = [tokens.find_caller(each) or await tokens.verify(each) for each in (token, other_token) * 2]

    assert [caller.name for caller in callers] == [USER, "reports"] * 2
    assert counting_key.verifications == 2


@pytest.mark.parametrize(("valid_seconds", "cached_seconds"), [(3600, CACHE_SECONDS), (5, 5 + LEEWAY_SECONDS)])
async def test_a_token_stays_in_the_cache_for_a_minute_or_until_it_expires(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch, valid_seconds: float, cached_seconds: float
) -> None:
    token, now = new_token(USER, exp=time.time() + valid_seconds), time.monotonic()
    await tokens.verify(token)

    monkeypatch.setattr(time, "monotonic", lambda: now + cached_seconds - 1)
    assert tokens.find_caller(token) is not None

    monkeypatch.setattr(time, "monotonic", lambda: now + cached_seconds + 1)
    assert tokens.find_caller(token) is None


async def test_a_rejected_token_is_not_cached(counting_key: CountingKey) -> None:
    tokens = Tokens(ISSUER, AUDIENCE, counting_key)
    token = new_token(USER, exp=1)

    reasons = [await rejection_reason(tokens, token) for _ in range(2)]

    assert reasons == ["expired"] * 2
    assert tokens.find_caller(token) is None
    assert counting_key.verifications == 2


def test_the_cache_drops_the_oldest_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "CACHE_SIZE", 2)
    cache = TokenCache()
    caller = Caller(USER, frozenset(), USER)

    cache.add("first", caller, 60)
    cache.add("second", caller, 60)
    cache.add("third", caller, 60)

    assert [cache.find_caller(token) for token in ("first", "second", "third")] == [None, caller, caller]
