"""Tokens that an issuer has signed (JWTs): who bears one, and what that one may do.

Imported only where tokens are configured: what checks their signatures takes 9 MiB.
The issuer's clock decided when a token ends, so the machine's clock judges it, not Redis's.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any, Protocol

import jwt
from pydantic import TypeAdapter, ValidationError

from service.api.request_bodies import Uuid
from service.auth.scopes import SCOPES, Caller, Scope, including
from service.auth.token_cache import TokenCache
from service.errors import Unauthorized

LEEWAY_SECONDS = 10
"""How far the issuer's clock may be from this one."""

_USERS_OWN: frozenset[Scope] = frozenset(("read", "write"))
_UUID = TypeAdapter[str](Uuid)

_log = logging.getLogger(__name__)


class SigningKeys(Protocol):
    """What tokens are signed with, and by which algorithms: never by one that a token chooses."""

    @property
    def algorithms(self) -> tuple[str, ...]: ...

    async def key(self, key_id: str | None) -> jwt.PyJWK | bytes: ...

    async def aclose(self) -> None: ...


class HmacKey:
    """A secret that the issuer shares with the service."""

    algorithms = ("HS256",)

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    async def key(self, _: str | None) -> bytes:
        return self._secret

    async def aclose(self) -> None:
        """There is nothing to let go of."""


class Tokens:
    """The tokens of one issuer for one audience."""

    def __init__(self, issuer: str, audience: str, keys: SigningKeys) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = keys
        self._remembered = TokenCache()

    async def caller(self, token: str) -> Caller:
        """Who bears it. Raises Unauthorized, and IssuerUnavailable."""
        return self._remembered.caller(token) or await self._judged(token)

    async def aclose(self) -> None:
        await self._keys.aclose()

    async def _judged(self, token: str) -> Caller:
        try:
            claims = await self._claims(token)
        except jwt.ExpiredSignatureError:
            raise Unauthorized("The token has expired.", reason="expired") from None
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            _log.debug("a token was refused: %s", type(error).__name__)
            raise Unauthorized.unknown() from None
        caller = caller_of(claims)
        self._remembered.remember(token, caller, float(claims["exp"]) + LEEWAY_SECONDS - time.time())
        return caller

    async def _claims(self, token: str) -> Mapping[str, Any]:
        """What it says, once its signature has shown who says it."""
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
    """A `sub` that is a user's id is that user, whom a `scope` narrows; another one may do what its `scope` names."""
    subject = claims["sub"]
    named = _scopes_of(claims)
    try:
        user_id = _UUID.validate_python(subject)
    except ValidationError:
        return Caller(subject, named or frozenset(), by="token")
    return Caller(user_id, _USERS_OWN if named is None else named & _USERS_OWN, user_id, by="token")


def _scopes_of(claims: Mapping[str, Any]) -> frozenset[Scope] | None:
    """Those of this service that it names; None where it has no `scope` at all."""
    if "scope" not in claims:
        return None
    named = set(str(claims["scope"]).split())
    return including(scope for scope in SCOPES if scope in named)
