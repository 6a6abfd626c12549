"""The public keys of an issuer of tokens, fetched from it and kept."""

import asyncio
import logging
import time
from collections.abc import Mapping
from http import HTTPStatus

import aiohttp
import jwt
import orjson

from service.errors import IssuerUnavailable, Unauthorized

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Those of public keys: whoever knows one of these cannot sign with it."""

REFRESH_SECONDS = 300
"""How old keys may be before they are fetched again, beside the requests that go on with them."""

PAUSE_SECONDS = 10
"""Between two fetches at least, also where tokens name keys that there are not."""

STALE_SECONDS = 3600
"""How long keys are good for while the issuer is away."""

_FETCH_SECONDS = 5
_MAX_BYTES = 256 * 1024

_log = logging.getLogger(__name__)


class JwksKeys:
    """The keys at a URL (a JWKS, RFC 7517), by their ids."""

    algorithms = ALGORITHMS

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: Mapping[str | None, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._trouble: str | None = None

    async def key(self, key_id: str | None) -> jwt.PyJWK:
        """Raises Unauthorized where there is none, and IssuerUnavailable where that cannot be known."""
        found = self._found(key_id)
        fetching = self._fetch_if_due(found)
        if found is None and fetching is not None:
            await asyncio.shield(fetching)
            found = self._found(key_id)
        if found is not None:
            return found
        if self._trouble is not None:
            raise IssuerUnavailable
        raise Unauthorized.unknown()

    async def aclose(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    def _found(self, key_id: str | None) -> jwt.PyJWK | None:
        return self._keys.get(key_id) if self._age_seconds() < STALE_SECONDS else None

    def _age_seconds(self) -> float:
        return time.monotonic() - self._fetched_at

    def _fetch_if_due(self, found: jwt.PyJWK | None) -> asyncio.Task[None] | None:
        """The fetch that is under way, or is begun now; None where the keys will do, or were tried just now."""
        if self._fetching is not None and not self._fetching.done():
            return self._fetching
        is_due = found is None or self._age_seconds() > REFRESH_SECONDS
        if not is_due or time.monotonic() - self._tried_at < PAUSE_SECONDS:
            return None
        self._tried_at = time.monotonic()
        self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        try:
            self._keys = _by_id(await self._body())
        except Exception as error:  # it may be anything that others serve there
            self._say_trouble(f"{type(error).__name__}: {error}")
        else:
            self._fetched_at = time.monotonic()
            self._say_all_is_well()

    async def _body(self) -> bytes:
        timeout = aiohttp.ClientTimeout(_FETCH_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            http.get(self._url, allow_redirects=False) as response,
        ):
            if response.status != HTTPStatus.OK:
                raise ValueError(f"the answer was {response.status}")
            body = b""
            async for part in response.content.iter_any():
                body += part
                if len(body) > _MAX_BYTES:
                    raise ValueError("too long for a set of keys")
            return body

    def _say_trouble(self, why: str) -> None:
        if self._trouble is None:
            _log.error("SESSION_JWT_JWKS_URL: the keys of tokens cannot be had: %s", why)
        self._trouble = why

    def _say_all_is_well(self) -> None:
        if self._trouble is not None:
            _log.info("SESSION_JWT_JWKS_URL: the keys of tokens can be had again")
        self._trouble = None


def _by_id(body: bytes) -> dict[str | None, jwt.PyJWK]:
    """Those that tokens may be signed with. Where there is but one, a token need not name it."""
    found = orjson.loads(body)
    if not isinstance(found, dict):
        raise ValueError("not a set of keys")
    keys = [key for key in jwt.PyJWKSet.from_dict(found) if _is_for_signatures(key)]
    by_id = {key.key_id: key for key in keys}
    return by_id | {None: keys[0]} if len(keys) == 1 else by_id


def _is_for_signatures(key: jwt.PyJWK) -> bool:
    return key.public_key_use in (None, "sig") and key.algorithm_name in ALGORITHMS
