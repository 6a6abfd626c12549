"""Time passes for a bucket: what is missing in it comes back, as if Redis's clock had gone on."""

from redis.asyncio import Redis


async def age_bucket(redis: Redis, key: str, passed_ms: int) -> None:
    """One that would have filled meanwhile is gone."""
    full_at_us = int(await redis.get(key) or 0) - passed_ms * 1000
    seconds, microseconds = await redis.time()
    if full_at_us <= seconds * 1_000_000 + microseconds:
        await redis.delete(key)
    else:
        await redis.set(key, full_at_us, pxat=full_at_us // 1000 + 1)
