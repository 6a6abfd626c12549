"""The public keys of an issuer, fetched from its JWKS URL (RFC 7517)."""

import asyncio
import logging
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

import aiohttp
import jwt
import orjson

from service.errors import IssuerUnavailable, Unauthorized

RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
ALGORITHMS = (*RSA_ALGORITHMS, "ES256", "ES384", "ES512", "EdDSA")
"""Asymmetric algorithms only: a public key must never verify an HMAC."""

REFRESH_SECONDS = 300
"""Keys older than this are fetched again in the background."""

RETRY_SECONDS = 10
"""Minimum time between two fetches, also for tokens with unknown key ids."""

STALE_SECONDS = 3600
"""Keys stay valid for this time while the issuer is unavailable."""

_FETCH_TIMEOUT_SECONDS = 5
_MAX_BYTES = 256 * 1024

_log = logging.getLogger(__name__)


class _Purpose(NamedTuple):
    key_id: str | None
    algorithm: str


class JwksKeys:
    """Fetches and caches the keys at a URL, through the proxy that `HTTPS_PROXY` names."""

    algorithms = ALGORITHMS

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: Mapping[_Purpose, jwt.PyJWK] = {}
        self._fetched_at = self._attempted_at = float("-inf")
        self._fetch_task: asyncio.Task[None] | None = None
        self._is_failing = False

    async def key(self, key_id: str | None, algorithm: str) -> jwt.PyJWK:
        """Return the key with this id, or the only key for None, if it permits the algorithm.

        Raises Unauthorized if there is no such key, and IssuerUnavailable if the last fetch failed.
        """
        purpose = _Purpose(key_id, algorithm)
        key = self._cached_key(purpose)
        task = self._start_fetch_if_due(key)
        if key is None and task is not None:
            await asyncio.shield(task)
            key = self._cached_key(purpose)
        if key is not None:
            return key
        if self._is_failing:
            raise IssuerUnavailable
        raise Unauthorized.unknown()

    async def aclose(self) -> None:
        if self._fetch_task is not None:
            self._fetch_task.cancel()
            await asyncio.wait([self._fetch_task])

    def _cached_key(self, purpose: _Purpose) -> jwt.PyJWK | None:
        return self._keys.get(purpose) if self._age_seconds() < STALE_SECONDS else None

    def _age_seconds(self) -> float:
        return time.monotonic() - self._fetched_at

    def _start_fetch_if_due(self, key: jwt.PyJWK | None) -> asyncio.Task[None] | None:
        """Return the running fetch, after starting one if the key is missing or old."""
        if self._fetch_task is not None and not self._fetch_task.done():
            return self._fetch_task
        is_due = key is None or self._age_seconds() > REFRESH_SECONDS
        if not is_due or time.monotonic() - self._attempted_at < RETRY_SECONDS:
            return None
        self._attempted_at = time.monotonic()
        self._fetch_task = asyncio.create_task(self._fetch())
        return self._fetch_task

    async def _fetch(self) -> None:
        try:
            self._keys = _parse_keys(await self._download())
        except Exception as error:  # the response may be anything
            if not self._is_failing:
                _log.error("SESSION_JWT_JWKS_URL: cannot fetch the issuer's keys: %s: %s", type(error).__name__, error)
            self._is_failing = True
        else:
            self._fetched_at = time.monotonic()
            if self._is_failing:
                _log.info("SESSION_JWT_JWKS_URL: fetched the issuer's keys again")
            self._is_failing = False

    async def _download(self) -> bytes:
        timeout = aiohttp.ClientTimeout(_FETCH_TIMEOUT_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as http,
            http.get(self._url, allow_redirects=False) as response,
        ):
            if response.status != HTTPStatus.OK:
                raise ValueError(f"the response has status {response.status}")
            body = b""
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > _MAX_BYTES:
                    raise ValueError(f"the response is larger than {_MAX_BYTES} bytes")
            return body


def _parse_keys(body: bytes) -> dict[_Purpose, jwt.PyJWK]:
    """Return the signature keys. If all have the same id, tokens need not name it."""
    document = orjson.loads(body)
    if not isinstance(document, dict):
        raise ValueError("the response is not a JSON object")
    if isinstance(document.get("keys"), list):
        document["keys"] = [jwk for key in document["keys"] for jwk in _with_algorithms(key)]
    keys = {
        _Purpose(key.key_id, key.algorithm_name): key
        for key in jwt.PyJWKSet.from_dict(document)
        if _is_for_signatures(key)
    }
    if len({purpose.key_id for purpose in keys}) == 1:
        keys |= {purpose._replace(key_id=None): key for purpose, key in keys.items()}
    return keys


def _with_algorithms(key: object) -> list[object]:
    """Return a copy of an RSA key for each algorithm that it permits: all of them if it has no `alg` (RFC 7517)."""
    if not isinstance(key, dict) or key.get("kty") != "RSA" or "alg" in key:
        return [key]
    return [{**key, "alg": algorithm} for algorithm in RSA_ALGORITHMS]


def _is_for_signatures(key: jwt.PyJWK) -> bool:
    return key.public_key_use in (None, "sig") and key.algorithm_name in ALGORITHMS
