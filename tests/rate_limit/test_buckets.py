"""Buckets in Redis: exact under races, filled by Redis's clock, and gone when full."""

import asyncio
from collections import Counter
from contextlib import suppress

import pytest
from redis.asyncio import Redis

from service.errors import RateLimited
from service.rate_limit.buckets import Buckets
from service.rate_limit.limit import Limit, RateLimitStatus
from service.redis_client.client import RedisClient
from service.redis_client.factory import ClientFactory
from service.sessions.keys import BucketKeys, Keys
from service.settings.rate_limits import Rate
from tests.rate_limit.aging import age_bucket

HOUR_MS = 3_600_000
TEN = Limit("address", Rate(10, 3600))
TWO = Limit("address-guesses", Rate(2, 3600))
REQUESTS = Keys("").requests("address", "203.0.113.7")
GUESSES = Keys("").failed_lookups("address", "203.0.113.7")
OTHERS = Keys("").requests("address", "203.0.113.8")


@pytest.fixture
def buckets(redis_client: RedisClient) -> Buckets:
    return Buckets(redis_client)


async def attempted(
    buckets: Buckets, keys: BucketKeys = REQUESTS, limit: Limit | None = TEN, bar: Limit | None = None
) -> str:
    """`taken`, with what the answer would tell, or the limit that refused."""
    told = RateLimitStatus()
    try:
        await buckets.take(keys, limit, bar, told)
    except RateLimited as refusal:
        return f"refused by {refusal.limit}"
    return "taken"


async def told_of(buckets: Buckets, limit: Limit = TEN) -> str:
    """What an answer tells of the bucket once another one is taken, or refused."""
    told = RateLimitStatus()
    with suppress(RateLimited):
        await buckets.take(REQUESTS, limit, None, told)
    return told.headers()["RateLimit"]


async def take_all(buckets: Buckets, keys: BucketKeys = REQUESTS, limit: Limit = TEN) -> None:
    for _ in range(limit.quota):
        await buckets.take(keys, limit, None, RateLimitStatus())


async def test_of_two_hundred_at_once_exactly_the_quota_is_taken(redis_client_factory: ClientFactory) -> None:
    redis_clients = [redis_client_factory.new_client() for _ in range(4)]
    ways = [Buckets(redis_client) for redis_client in redis_clients]

    answers = await asyncio.gather(*(attempted(ways[turn % 4]) for turn in range(200)))

    assert Counter(answers) == {"taken": 10, "refused by address": 190}
    await asyncio.gather(*(redis_client.aclose() for redis_client in redis_clients))


@pytest.mark.parametrize("rate", [Rate(7, 3600), Rate(301, 3600), Rate(997, 86_400)], ids=str)
async def test_what_does_not_divide_the_window_is_exact_too(buckets: Buckets, rate: Rate) -> None:
    limit = Limit("address", rate)

    answers = await asyncio.gather(*(attempted(buckets, limit=limit) for _ in range(rate.quota + 1)))

    assert Counter(answers) == {"taken": rate.quota, "refused by address": 1}


async def test_each_subject_has_its_own(buckets: Buckets) -> None:
    await take_all(buckets)

    assert await attempted(buckets) == "refused by address"
    assert await attempted(buckets, OTHERS) == "taken"


async def test_it_fills_evenly_by_the_clock_of_redis(buckets: Buckets, real_redis: Redis) -> None:
    await take_all(buckets)
    await age_bucket(real_redis, REQUESTS.bucket, HOUR_MS // 10 * 3)

    answers = [await attempted(buckets) for _ in range(4)]

    assert answers == ["taken"] * 3 + ["refused by address"]


async def test_what_is_refused_takes_nothing(buckets: Buckets, real_redis: Redis) -> None:
    await take_all(buckets)
    await asyncio.gather(*(attempted(buckets) for _ in range(50)))
    await age_bucket(real_redis, REQUESTS.bucket, HOUR_MS // 10)

    assert await attempted(buckets) == "taken"


async def test_it_holds_no_more_than_the_quota_however_long_it_is_left(buckets: Buckets, real_redis: Redis) -> None:
    await attempted(buckets)
    await age_bucket(real_redis, REQUESTS.bucket, 100 * HOUR_MS)

    answers = [await attempted(buckets) for _ in range(11)]

    assert answers == ["taken"] * 10 + ["refused by address"]


async def test_a_full_bucket_is_not_there(buckets: Buckets, real_redis: Redis) -> None:
    await attempted(buckets)

    assert HOUR_MS // 10 - 5000 < await real_redis.pttl(REQUESTS.bucket) <= HOUR_MS // 10 + 1


async def test_an_answer_tells_what_is_left_and_when_all_is_there_again(buckets: Buckets) -> None:
    assert await told_of(buckets) == '"address";r=9;t=360'
    assert await told_of(buckets) == '"address";r=8;t=720'


async def test_where_none_is_left_it_tells_when_the_next_is_there(buckets: Buckets, real_redis: Redis) -> None:
    await take_all(buckets)
    await age_bucket(real_redis, REQUESTS.bucket, HOUR_MS // 10)

    assert await told_of(buckets) == '"address";r=0;t=360'
    assert await told_of(buckets) == '"address";r=0;t=360'


async def test_a_bar_keeps_out_what_the_bucket_would_let_through(buckets: Buckets) -> None:
    before = await attempted(buckets, bar=TWO)
    await take_all(buckets, GUESSES, TWO)

    assert before == "taken"
    assert await attempted(buckets, bar=TWO) == "refused by address-guesses"
    assert await attempted(buckets, limit=None, bar=TWO) == "refused by address-guesses"
    assert await attempted(buckets) == "taken"


async def test_what_a_bar_keeps_out_takes_nothing(buckets: Buckets, real_redis: Redis) -> None:
    await take_all(buckets, GUESSES, TWO)
    await asyncio.gather(*(attempted(buckets, bar=TWO) for _ in range(50)))

    assert await real_redis.exists(REQUESTS.bucket) == 0


async def test_to_look_at_the_bar_alone_takes_nothing(buckets: Buckets, real_redis: Redis) -> None:
    assert await attempted(buckets, limit=None, bar=TWO) == "taken"
    assert await real_redis.dbsize() == 0


async def test_another_quota_is_in_force_at_once(buckets: Buckets, real_redis: Redis) -> None:
    daily, minutely = Limit("address", Rate(10, 86_400)), Limit("address", Rate(100, 60))
    await take_all(buckets, limit=daily)

    first = await told_of(buckets, minutely)
    await age_bucket(real_redis, REQUESTS.bucket, 30_000)

    assert first == '"address";r=0;t=1'
    assert await told_of(buckets, minutely) == '"address";r=49;t=31'


@pytest.mark.parametrize("value", ["nonsense", ""])
async def test_what_is_no_instant_is_a_full_bucket(buckets: Buckets, real_redis: Redis, value: str) -> None:
    await real_redis.set(REQUESTS.bucket, value)

    assert await told_of(buckets) == '"address";r=9;t=360'
    assert await real_redis.pttl(REQUESTS.bucket) > 0


@pytest.mark.parametrize("keys", [REQUESTS, GUESSES], ids=["bucket", "bar"])
async def test_what_lies_too_far_ahead_is_an_empty_bucket(
    buckets: Buckets, real_redis: Redis, keys: BucketKeys
) -> None:
    await real_redis.set(keys.bucket, "9" * 30)
    first = await attempted(buckets, bar=TWO)
    await age_bucket(real_redis, keys.bucket, HOUR_MS // 2)

    assert first.startswith("refused")
    assert await attempted(buckets, bar=TWO) == "taken"


async def test_a_key_of_another_type_is_put_right(buckets: Buckets, real_redis: Redis) -> None:
    await real_redis.hset(REQUESTS.bucket, "a", "hash")

    assert await told_of(buckets) == '"address";r=9;t=360'
    assert await real_redis.pttl(REQUESTS.bucket) > 0
