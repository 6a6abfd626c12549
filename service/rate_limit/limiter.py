"""The rate limiter: counts requests and failed lookups by address and by caller."""

import hashlib
import re
from functools import lru_cache
from ipaddress import IPv6Network, ip_address
from typing import NamedTuple

from prometheus_client import Counter

from service.auth.scopes import Caller
from service.errors import RateLimited, StartupError
from service.observability.metrics import Metrics
from service.rate_limit.buckets import Buckets, Limit, RateLimitStatus
from service.redis_client.client import RedisClient
from service.sessions.keys import BucketKeys, Keys
from service.settings import Settings
from service.settings.rate_limits import Rate

_SAFE_NAME = re.compile(r"[\w.@|:/+=-]{1,64}", re.ASCII)
_CACHE_SIZE = 4096
_IPV6_PREFIX_BITS = 64
"""One client can use every address of such a network, so the network is counted as a whole."""


class Allowance(NamedTuple):
    """The limits of one kind of subject. None: no limit."""

    requests: Limit | None
    failed_lookups: Limit | None

    def __bool__(self) -> bool:
        return self != (None, None)


def allowance(subject: str, requests: Rate | None, failed_lookups: Rate | None) -> Allowance:
    return Allowance(
        requests and Limit(subject, requests),
        failed_lookups and Limit(f"{subject}-guesses", failed_lookups),
    )


class RateLimiter:
    """Enforces the limits of addresses and callers. All methods raise RateLimited.

    A failed lookup is an unknown session id, API key or token. When no failed lookups remain, the limiter rejects
    every request for a session, whether the session exists or not. Concurrent requests may pass before the first
    failed lookup is counted, but no more failures are reported than the limit allows.
    """

    def __init__(
        self, keys: Keys, buckets: Buckets, address_limits: Allowance, caller_limits: Allowance, rejected: Counter
    ) -> None:
        self._keys = keys
        self._buckets = buckets
        self._address_limits = address_limits
        self._caller_limits = caller_limits
        self._rejected = rejected

    @property
    def limits_callers(self) -> bool:
        return bool(self._caller_limits)

    async def count_request(self, address: str, status: RateLimitStatus, *, names_session: bool) -> None:
        """Count a request of an address. `names_session`: the path contains a session id."""
        requests, failed_lookups = self._address_limits
        keys = self._keys.requests("address", subject_of_address(address))
        await self._take(keys, requests, failed_lookups if names_session else None, status)

    async def count_caller_request(self, caller: Caller, status: RateLimitStatus, *, names_session: bool) -> None:
        """Count a request of an authenticated caller."""
        requests, failed_lookups = self._caller_limits
        keys = self._keys.requests("caller", subject_of_caller(caller))
        await self._take(keys, requests, failed_lookups if names_session else None, status)

    async def count_failed_lookup(self, address: str, caller: Caller | None, status: RateLimitStatus) -> None:
        """Count a failed lookup. If the limit is exceeded, its result must not be reported."""
        keys = self._keys.failed_lookups("address", subject_of_address(address))
        await self._take(keys, self._address_limits.failed_lookups, None, status)
        if caller is not None:
            keys = self._keys.failed_lookups("caller", subject_of_caller(caller))
            await self._take(keys, self._caller_limits.failed_lookups, None, status)

    async def _take(
        self, keys: BucketKeys, limit: Limit | None, blocked_by: Limit | None, status: RateLimitStatus
    ) -> None:
        try:
            await self._buckets.take(keys, limit, blocked_by, status)
        except RateLimited as error:
            self._rejected.labels(error.limit).inc()
            raise


def build_rate_limiter(settings: Settings, redis: RedisClient, keys: Keys, metrics: Metrics) -> RateLimiter | None:
    """Return None if nothing is limited. Use a client that does not wait for replicas.

    Raises StartupError if callers are limited without authentication.
    """
    address_limits = allowance("address", settings.rate_per_address, settings.failed_lookups_per_address)
    caller_limits = allowance("caller", settings.rate_per_caller, settings.failed_lookups_per_caller)
    if caller_limits and not settings.requires_authentication:
        name = "SESSION_RATE_PER_CALLER" if caller_limits.requests else "SESSION_GUESSES_PER_CALLER"
        raise StartupError(f"{name}: requires authentication; set SESSION_API_KEYS or SESSION_JWT_ISSUER")
    if not (address_limits or caller_limits):
        return None
    return RateLimiter(keys, Buckets(redis), address_limits, caller_limits, metrics.requests_limited)


@lru_cache(_CACHE_SIZE)
def subject_of_address(address: str) -> str:
    """Return an IPv4 address itself, and the /64 network of an IPv6 address. Other text is returned as it is."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return address if parsed.version == 4 else str(IPv6Network((int(parsed), _IPV6_PREFIX_BITS), strict=False))


@lru_cache(_CACHE_SIZE)
def subject_of_caller(caller: Caller) -> str:
    """Return `method:name`. Long names and names with special characters are replaced by a hash."""
    name = caller.name
    if not _SAFE_NAME.fullmatch(name):
        name = "#" + hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return f"{caller.method}:{name}"
