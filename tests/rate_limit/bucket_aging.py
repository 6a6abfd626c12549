"""Let time pass for a bucket."""

from redis.asyncio import Redis


async def age_bucket(redis: Redis, key: str, milliseconds: int) -> None:
    """Refill the bucket as if this time had passed. A full bucket has no key."""
    full_at_us = int(await redis.get(key) or 0) - milliseconds * 1000
    seconds, microseconds = await redis.time()
    if full_at_us <= seconds * 1_000_000 + microseconds:
        await redis.delete(key)
    else:
        await redis.set(key, full_at_us, pxat=full_at_us // 1000 + 1)
