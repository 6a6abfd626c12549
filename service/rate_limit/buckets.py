"""Limits, their token buckets in Redis, which all replicas share, and the RateLimit headers of responses."""

from collections.abc import Mapping
from typing import NamedTuple

from service.errors import RateLimited, StoreUnavailable
from service.rate_limit.circuit_breaker import CircuitBreaker
from service.redis_client.client import RedisClient
from service.redis_client.errors import ScriptError, UnexpectedReply
from service.redis_client.scripts import Command
from service.sessions import scripts
from service.sessions.keys import BucketKeys
from service.settings.rate_limits import Rate


class Limit:
    """A rate with the name that headers, metrics and errors use."""

    def __init__(self, name: str, rate: Rate) -> None:
        self.name = name
        self.quota = rate.quota
        self.interval_us = rate.interval_us
        self.policy = f'"{name}";q={rate.quota};w={rate.window_seconds}'
        """The item of the RateLimit-Policy header."""


class LimitState(NamedTuple):
    """The state of a limit after a request."""

    limit: Limit
    remaining: int
    reset_seconds: int
    """Seconds until the whole quota is available, or the next request if nothing remains."""

    def __str__(self) -> str:
        """Return the item of the RateLimit header."""
        return f'"{self.limit.name}";r={self.remaining};t={self.reset_seconds}'


class RateLimitStatus:
    """The state of each limit that counted a request."""

    def __init__(self) -> None:
        self._states: list[LimitState] = []

    def add(self, state: LimitState) -> None:
        self._states.append(state)

    def headers(self) -> Mapping[str, str]:
        """Return the header fields of draft-ietf-httpapi-ratelimit-headers, if a limit counted the request."""
        states = self._states
        if not states:
            return {}
        return {
            "RateLimit-Policy": ", ".join([state.limit.policy for state in states]),
            "RateLimit": ", ".join(map(str, states)),
        }


class Buckets:
    """Takes requests from buckets. If Redis is unavailable, requests are not limited."""

    def __init__(self, redis: RedisClient) -> None:
        """Use a client that does not wait for replicas. A failover may lose the counts of a few requests."""
        self._redis = redis
        self._circuit_breaker = CircuitBreaker(by_slot=not redis.supports_multi_slot)

    async def take(
        self, keys: BucketKeys, limit: Limit | None, blocked_by: Limit | None, status: RateLimitStatus
    ) -> None:
        """Take one request of `limit` and add the state of the limit to `status`.

        Raises RateLimited, and takes nothing, if nothing remains of `limit` or of `blocked_by`.
        """
        if (limit is None and blocked_by is None) or not self._circuit_breaker.allows(keys.bucket):
            return
        try:
            (reply,) = await self._redis.execute(_command(keys, limit, blocked_by))
        except (StoreUnavailable, ScriptError) as error:
            self._circuit_breaker.record_failure(keys.bucket, error)
            return
        self._circuit_breaker.record_success(keys.bucket)
        match reply:
            case [b"taken", remaining, full_in_us] if limit is not None:
                next_in_us = full_in_us - (limit.quota - 1) * limit.interval_us
                status.add(LimitState(limit, remaining, _seconds(full_in_us if remaining else next_in_us)))
            case [b"not_limited"]:
                pass
            case [b"empty", next_in_us] if limit is not None:
                raise _rate_limited(limit, next_in_us, status)
            case [b"blocked", next_in_us] if blocked_by is not None:
                raise _rate_limited(blocked_by, next_in_us, status)
            case _:
                raise UnexpectedReply(repr(reply[:1]))


def _command(keys: BucketKeys, limit: Limit | None, blocked_by: Limit | None) -> Command:
    return scripts.RATE_LIMIT.command(
        keys,
        quota=0 if limit is None else limit.quota,
        interval_us=0 if limit is None else limit.interval_us,
        blocked_by_quota=0 if blocked_by is None else blocked_by.quota,
        blocked_by_interval_us=0 if blocked_by is None else blocked_by.interval_us,
    )


def _rate_limited(limit: Limit, next_in_us: int, status: RateLimitStatus) -> RateLimited:
    seconds = _seconds(next_in_us)
    status.add(LimitState(limit, 0, seconds))
    return RateLimited(limit.name, seconds)


def _seconds(microseconds: int) -> int:
    """Round up to whole seconds."""
    return -(-microseconds // 1_000_000)
