"""The buckets in Redis: one script takes from them, so that they hold over any number of replicas."""

from service.errors import RateLimited, StoreUnavailable
from service.rate_limit.circuit_breaker import CircuitBreaker
from service.rate_limit.limit import Limit, LimitState
from service.rate_limit.status import RateLimitStatus
from service.redis_client.client import RedisClient
from service.redis_client.errors import ScriptError, UnexpectedReply
from service.redis_client.scripts import Command
from service.sessions import scripts
from service.sessions.keys import BucketKeys


class Buckets:
    """Where Redis does not count, all are let through uncounted: whatever they ask of it then fails by itself."""

    def __init__(self, redis: RedisClient) -> None:
        """No change on the lane may wait for replicas: what is lost in a failover is a few requests' counts."""
        self._redis = redis
        self._uncounted = CircuitBreaker(by_slot=not redis.supports_multi_slot)

    async def take(self, keys: BucketKeys, limit: Limit | None, bar: Limit | None, told: RateLimitStatus) -> None:
        """Take one of what is limited, and tell how that stands.

        Raises RateLimited where none is left of it, or of what bars the way. What is refused takes nothing.
        """
        if (limit is None and bar is None) or not self._uncounted.is_worth_a_try(keys.bucket):
            return
        try:
            (answer,) = await self._redis.execute(_command(keys, limit, bar))
        except (StoreUnavailable, ScriptError) as error:
            self._uncounted.failed(keys.bucket, error)
            return
        self._uncounted.went_well(keys.bucket)
        match answer:
            case [b"taken", left, full_in_us] if limit is not None:
                next_in_us = full_in_us - (limit.quota - 1) * limit.interval_us
                told.add(LimitState(limit, left, _in_seconds(full_in_us if left else next_in_us)))
            case [b"open"]:
                pass
            case [b"empty", next_in_us] if limit is not None:
                raise _refusal(limit, next_in_us, told)
            case [b"barred", next_in_us] if bar is not None:
                raise _refusal(bar, next_in_us, told)
            case _:
                raise UnexpectedReply(repr(answer[:1]))


def _command(keys: BucketKeys, limit: Limit | None, bar: Limit | None) -> Command:
    return scripts.RATE_LIMIT.command(
        keys,
        quota=0 if limit is None else limit.quota,
        interval_us=0 if limit is None else limit.interval_us,
        bar_quota=0 if bar is None else bar.quota,
        bar_interval_us=0 if bar is None else bar.interval_us,
    )


def _refusal(limit: Limit, next_in_us: int, told: RateLimitStatus) -> RateLimited:
    seconds = _in_seconds(next_in_us)
    told.add(LimitState(limit, 0, seconds))
    return RateLimited(limit.name, seconds)


def _in_seconds(microseconds: int) -> int:
    return -(-microseconds // 1_000_000)
