"""Verification of tokens (JWTs) that an issuer signs.

The modules that verify signatures take 9 MiB, so this module is imported only if tokens are configured. Expiry is
checked against the local clock, because the issuer's clock set it.
"""

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jwt

from service.auth.scopes import Caller
from service.errors import Unauthorized
from service.identifiers import parse_uuid
from service.settings.api_keys import SCOPES, Scope, expand_scopes

LEEWAY_SECONDS = 10
"""Accepted difference between the issuer's clock and the local clock."""

CACHE_SECONDS = 60
"""A verified token is not verified again for this time, even if the issuer has withdrawn its key."""

CACHE_SIZE = 10_000

_USER_SCOPES: frozenset[Scope] = frozenset(("read", "write"))

_log = logging.getLogger(__name__)


class SigningKeys(Protocol):
    """The keys and algorithms that sign tokens. A token does not choose its algorithm."""

    @property
    def algorithms(self) -> tuple[str, ...]: ...

    async def key(self, key_id: str | None) -> jwt.PyJWK | bytes:
        """Raises Unauthorized for an unknown key id, and IssuerUnavailable."""

    async def aclose(self) -> None: ...


class HmacKey:
    """A secret shared with the issuer."""

    algorithms = ("HS256",)

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    async def key(self, _: str | None) -> bytes:
        return self._secret

    async def aclose(self) -> None:
        pass


class TokenCache:
    """Callers of recently verified tokens, by the digest of the token."""

    def __init__(self) -> None:
        self._entries: OrderedDict[bytes, _CachedCaller] = OrderedDict()

    def find_caller(self, token: str) -> Caller | None:
        entry = self._entries.get(_digest(token))
        return entry.caller if entry is not None and time.monotonic() < entry.valid_until else None

    def add(self, token: str, caller: Caller, remaining_seconds: float) -> None:
        """Cache the caller for `CACHE_SECONDS`, or until the token expires."""
        digest = _digest(token)
        self._entries[digest] = _CachedCaller(caller, time.monotonic() + min(remaining_seconds, CACHE_SECONDS))
        self._entries.move_to_end(digest)
        if len(self._entries) > CACHE_SIZE:
            self._entries.popitem(last=False)


class _CachedCaller(NamedTuple):
    caller: Caller
    valid_until: float
    """On the monotonic clock, in seconds."""


class Tokens:
    """Verifies the tokens of one issuer for one audience."""

    def __init__(self, issuer: str, audience: str, keys: SigningKeys) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = keys
        self._cache = TokenCache()

    def find_caller(self, token: str) -> Caller | None:
        """Return the caller of a recently verified token."""
        return self._cache.find_caller(token)

    async def verify(self, token: str) -> Caller:
        """Verify the token and return its caller. Raises Unauthorized and IssuerUnavailable."""
        try:
            claims = await self._verified_claims(token)
        except jwt.ExpiredSignatureError:
            raise Unauthorized.expired() from None
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            _log.debug("rejected a token: %s", type(error).__name__)
            raise Unauthorized.unknown() from None
        caller = caller_of(claims)
        self._cache.add(token, caller, float(claims["exp"]) + LEEWAY_SECONDS - time.time())
        return caller

    async def aclose(self) -> None:
        await self._keys.aclose()

    async def _verified_claims(self, token: str) -> Mapping[str, Any]:
        header = jwt.get_unverified_header(token)
        if header.get("alg") not in self._keys.algorithms:
            raise jwt.InvalidAlgorithmError
        return jwt.decode(
            token,
            await self._keys.key(header.get("kid")),
            self._keys.algorithms,
            issuer=self._issuer,
            audience=self._audience,
            leeway=LEEWAY_SECONDS,
            options={"require": ["exp", "iss", "aud", "sub"], "enforce_minimum_key_length": True},
        )


def caller_of(claims: Mapping[str, Any]) -> Caller:
    """Return the caller that the claims name.

    A `sub` that is a UUID is a user, with the scopes `read` and `write`; a `scope` claim can only narrow them. Any
    other `sub` is a service with the scopes of its `scope` claim.
    """
    subject = claims["sub"]
    scopes = _scopes_of(claims)
    try:
        user_id = parse_uuid(subject)
    except ValueError:
        return Caller(subject, scopes or frozenset(), method="token")
    return Caller(user_id, _USER_SCOPES if scopes is None else scopes & _USER_SCOPES, user_id, method="token")


def _scopes_of(claims: Mapping[str, Any]) -> frozenset[Scope] | None:
    """Return the known scopes of the `scope` claim, or None without this claim."""
    if "scope" not in claims:
        return None
    words = set(str(claims["scope"]).split())
    return expand_scopes(scope for scope in SCOPES if scope in words)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
