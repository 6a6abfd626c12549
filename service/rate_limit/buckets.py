"""Token buckets in Redis, shared by all replicas."""

from service.errors import RateLimited, StoreUnavailable
from service.rate_limit.circuit_breaker import CircuitBreaker
from service.rate_limit.limit import Limit, LimitState, RateLimitStatus
from service.redis_client.client import RedisClient
from service.redis_client.errors import ScriptError, UnexpectedReply
from service.redis_client.scripts import Command
from service.sessions import scripts
from service.sessions.keys import BucketKeys


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
