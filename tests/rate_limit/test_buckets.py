"""Token buckets in Redis: exact with concurrent requests, refilled by the clock of Redis, and deleted when full."""

import asyncio
from collections import Counter
from contextlib import suppress

import pytest
from redis.asyncio import Redis

from service.errors import RateLimited
from service.rate_limit.buckets import Buckets, Limit, RateLimitStatus
from service.redis_client.client import RedisClient
from service.redis_client.factory import ClientFactory
from service.sessions.keys import BucketKeys, Keys
from service.settings.rate_limits import Rate
from tests.rate_limit.bucket_aging import age_bucket

HOUR_MS = 3_600_000
TEN = Limit("address", Rate(10, 3600))
TWO = Limit("address-guesses", Rate(2, 3600))
REQUESTS = Keys("").requests("address", "203.0.113.7")
FAILED_LOOKUPS = Keys("").failed_lookups("address", "203.0.113.7")
OTHER_REQUESTS = Keys("").requests("address", "203.0.113.8")


@pytest.fixture
def buckets(redis_client: RedisClient) -> Buckets:
    return Buckets(redis_client)


async def take(
    buckets: Buckets, keys: BucketKeys = REQUESTS, limit: Limit | None = TEN, blocked_by: Limit | None = None
) -> str:
    """Take one request. Return `taken`, or the name of the exceeded limit."""
    try:
        await buckets.take(keys, limit, blocked_by, RateLimitStatus())
    except RateLimited as error:
        return error.limit
    return "taken"


async def take_all(buckets: Buckets, keys: BucketKeys = REQUESTS, limit: Limit = TEN) -> None:
    for _ in range(limit.quota):
        await take(buckets, keys, limit)


async def state_after_request(buckets: Buckets, limit: Limit = TEN) -> str:
    """Take one request, and return the RateLimit header."""
    status = RateLimitStatus()
    with suppress(RateLimited):
        await buckets.take(REQUESTS, limit, None, status)
    return status.headers()["RateLimit"]


async def test_exactly_the_quota_of_two_hundred_concurrent_requests_is_taken(
    redis_client_factory: ClientFactory,
) -> None:
    clients = [redis_client_factory.new_client() for _ in range(4)]
    buckets = [Buckets(client) for client in clients]

    results = await asyncio.gather(*(take(buckets[number % 4]) for number in range(200)))

    assert Counter(results) == {"taken": 10, "address": 190}
    await asyncio.gather(*(client.aclose() for client in clients))


@pytest.mark.parametrize("rate", [Rate(7, 3600), Rate(301, 3600), Rate(997, 86_400)], ids=str)
async def test_a_quota_that_does_not_divide_the_window_is_exact(buckets: Buckets, rate: Rate) -> None:
    limit = Limit("address", rate)

    results = await asyncio.gather(*(take(buckets, limit=limit) for _ in range(rate.quota + 1)))

    assert Counter(results) == {"taken": rate.quota, "address": 1}


async def test_each_subject_has_its_own_bucket(buckets: Buckets) -> None:
    await take_all(buckets)

    assert await take(buckets) == "address"
    assert await take(buckets, OTHER_REQUESTS) == "taken"


# Time


async def test_a_bucket_is_refilled_evenly(buckets: Buckets, real_redis: Redis) -> None:
    await take_all(buckets)
    await age_bucket(real_redis, REQUESTS.bucket, HOUR_MS // 10 * 3)

    assert [await take(buckets) for _ in range(4)] == ["taken"] * 3 + ["address"]


async def test_a_rejected_request_takes_nothing(buckets: Buckets, real_redis: Redis) -> None:
    await take_all(buckets)
    await asyncio.gather(*(take(buckets) for _ in range(50)))
    await age_bucket(real_redis, REQUESTS.bucket, HOUR_MS // 10)

    assert await take(buckets) == "taken"


async def test_a_bucket_contains_at_most_the_quota(buckets: Buckets, real_redis: Redis) -> None:
    await take(buckets)
    await age_bucket(real_redis, REQUESTS.bucket, 100 * HOUR_MS)

    assert [await take(buckets) for _ in range(11)] == ["taken"] * 10 + ["address"]


async def test_the_key_of_a_bucket_expires_when_it_is_full(buckets: Buckets, real_redis: Redis) -> None:
    await take(buckets)

    assert HOUR_MS // 10 - 5000 < await real_redis.pttl(REQUESTS.bucket) <= HOUR_MS // 10 + 1


# Headers


async def test_the_header_contains_the_remaining_requests_and_the_time_of_a_full_refill(buckets: Buckets) -> None:
    assert await state_after_request(buckets) == '"address";r=9;t=360'
    assert await state_after_request(buckets) == '"address";r=8;t=720'


async def test_without_remaining_requests_the_header_contains_the_time_of_the_next_one(
    buckets: Buckets, real_redis: Redis
) -> None:
    await take_all(buckets)
    await age_bucket(real_redis, REQUESTS.bucket, HOUR_MS // 10)

    assert await state_after_request(buckets) == '"address";r=0;t=360'
    assert await state_after_request(buckets) == '"address";r=0;t=360'


# Blocking


async def test_an_empty_bucket_blocks_another(buckets: Buckets) -> None:
    before = await take(buckets, blocked_by=TWO)
    await take_all(buckets, FAILED_LOOKUPS, TWO)

    assert before == "taken"
    assert await take(buckets, blocked_by=TWO) == "address-guesses"
    assert await take(buckets, limit=None, blocked_by=TWO) == "address-guesses"
    assert await take(buckets) == "taken"


async def test_a_blocked_request_takes_nothing(buckets: Buckets, real_redis: Redis) -> None:
    await take_all(buckets, FAILED_LOOKUPS, TWO)
    await asyncio.gather(*(take(buckets, blocked_by=TWO) for _ in range(50)))

    assert await real_redis.exists(REQUESTS.bucket) == 0


async def test_checking_only_the_blocking_bucket_takes_nothing(buckets: Buckets, real_redis: Redis) -> None:
    assert await take(buckets, limit=None, blocked_by=TWO) == "taken"
    assert await real_redis.dbsize() == 0


# Unexpected values


async def test_another_quota_applies_immediately(buckets: Buckets, real_redis: Redis) -> None:
    per_day, per_minute = Limit("address", Rate(10, 86_400)), Limit("address", Rate(100, 60))
    await take_all(buckets, limit=per_day)

    first = await state_after_request(buckets, per_minute)
    await age_bucket(real_redis, REQUESTS.bucket, 30_000)

    assert first == '"address";r=0;t=1'
    assert await state_after_request(buckets, per_minute) == '"address";r=49;t=31'


@pytest.mark.parametrize("value", ["nonsense", ""])
async def test_a_value_that_is_not_a_number_is_a_full_bucket(buckets: Buckets, real_redis: Redis, value: str) -> None:
    await real_redis.set(REQUESTS.bucket, value)

    assert await state_after_request(buckets) == '"address";r=9;t=360'
    assert await real_redis.pttl(REQUESTS.bucket) > 0


async def test_a_key_of_another_type_is_a_full_bucket(buckets: Buckets, real_redis: Redis) -> None:
    await real_redis.hset(REQUESTS.bucket, "a", "hash")

    assert await state_after_request(buckets) == '"address";r=9;t=360'
    assert await real_redis.pttl(REQUESTS.bucket) > 0


@pytest.mark.parametrize("keys", [REQUESTS, FAILED_LOOKUPS], ids=["bucket", "blocking bucket"])
async def test_a_time_too_far_ahead_is_an_empty_bucket(buckets: Buckets, real_redis: Redis, keys: BucketKeys) -> None:
    await real_redis.set(keys.bucket, "9" * 30)
    first = await take(buckets, blocked_by=TWO)
    await age_bucket(real_redis, keys.bucket, HOUR_MS // 2)

    assert first != "taken"
    assert await take(buckets, blocked_by=TWO) == "taken"
