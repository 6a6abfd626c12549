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
from uuid import UUID

import jwt

from service.auth.scopes import Caller
from service.errors import Unauthorized
from service.settings.api_keys import AGENT, SCOPES, Grant, Scope, parse_grant

LEEWAY_SECONDS = 10
"""Accepted difference between the issuer's clock and the local clock."""

CACHE_SECONDS = 60
"""A verified token is not verified again for this time, even if the issuer has withdrawn its key."""

CACHE_SIZE = 10_000

_USER_SCOPES: frozenset[Scope] = frozenset(("read", "write"))

_log = logging.getLogger(__name__)


class SigningKeys(Protocol):
    """The keys that sign tokens. A token chooses its algorithm among those that its key permits."""

    @property
    def algorithms(self) -> tuple[str, ...]: ...

    async def key(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | bytes:
        """Raises Unauthorized if there is no such key for this algorithm, and IssuerUnavailable."""

    async def aclose(self) -> None: ...


class HmacKey:
    """A secret shared with the issuer."""

    algorithms = ("HS256",)

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    async def key(self, *_: object) -> bytes:
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
        except (jwt.PyJWTError, ValueError, OverflowError, RecursionError) as error:
            _log.debug("rejected a token: %s", type(error).__name__)
            raise Unauthorized.unknown() from None
        caller = caller_of(claims)
        self._cache.add(token, caller, claims["exp"] + LEEWAY_SECONDS - time.time())
        return caller

    async def aclose(self) -> None:
        await self._keys.aclose()

    async def _verified_claims(self, token: str) -> Mapping[str, Any]:
        header = jwt.get_unverified_header(token)
        algorithm = header.get("alg")
        if algorithm not in self._keys.algorithms:
            raise jwt.InvalidAlgorithmError
        claims = jwt.decode(
            token,
            await self._keys.key(header.get("kid"), algorithm),
            [algorithm],
            issuer=self._issuer,
            audience=self._audience,
            leeway=LEEWAY_SECONDS,
            options={
                "require": ["exp", "iss", "aud", "sub"],
                "verify_iat": False,  # `nbf` alone delays a token
                "enforce_minimum_key_length": True,
            },
        )
        return claims | {"exp": float(claims["exp"])}


def caller_of(claims: Mapping[str, Any]) -> Caller:
    """Return the caller that the claims name.

    A `sub` that is a UUID, in any notation, is a user, with the scopes `read` and `write`; a `scope` claim can only
    restrict them. Any other `sub` is a service with the scopes of its `scope` claim.
    """
    subject = claims["sub"]
    grant = _grant_of(claims)
    user_id = _user_id_of(subject)
    if user_id is None:
        grant = grant or Grant(frozenset())
        return Caller(subject, grant.scopes, method="token", agent_id=grant.agent_id)
    return Caller(user_id, _USER_SCOPES if grant is None else grant.scopes & _USER_SCOPES, user_id, method="token")


def _user_id_of(subject: str) -> str | None:
    """Return the UUID, for example of `{…}`, `urn:uuid:…` or 32 hex digits. A user must never become a service."""
    try:
        return str(UUID(subject.strip().lower()))
    except ValueError:
        return None


def _grant_of(claims: Mapping[str, Any]) -> Grant | None:
    """Return the known scopes of the `scope` claim, or None without this claim. A claim of another type has none.

    A claim with `agent:<agentId>` grants nothing else.
    """
    if "scope" not in claims:
        return None
    claim = claims["scope"]
    words = claim.split() if isinstance(claim, str) else []
    agents = [word for word in words if word.startswith(f"{AGENT}:")]
    try:
        return parse_grant(agents or [word for word in words if word in (*SCOPES, AGENT)])
    except ValueError:
        return Grant(frozenset())


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
