"""Age sessions instead of waiting: move their times and the TTLs of their keys into the past."""

from redis.asyncio import Redis

from service.sessions.keys import Keys

_TIMES = ("createdAt", "lastActivity", "renewedAt", "expiresAt")


async def age(redis: Redis, session_id: str, by_ms: int, *, keys: Keys | None = None) -> None:
    """Make a session older, as if the time had passed since everything that happened to it."""
    key = (keys or Keys("")).of(session_id)
    expiries = {name: await redis.pexpiretime(name) for name in (key.session, key.tombstone)}
    async with redis.pipeline(transaction=True) as pipeline:
        if expiries[key.session] > 0:
            for field in _TIMES:
                pipeline.hincrby(key.session, field, -by_ms)
            pipeline.pexpireat(key.session, expiries[key.session] - by_ms)
        if expiries[key.tombstone] > 0:
            pipeline.hincrby(key.tombstone, "expiresAt", -by_ms)
            pipeline.pexpireat(key.tombstone, expiries[key.tombstone] - by_ms)
        for index in (key.expiry, key.warning, key.created):
            if await redis.zscore(index, session_id) is not None:
                pipeline.zincrby(index, -by_ms, session_id)
        await pipeline.execute()


async def age_with_indexes(redis: Redis, session_id: str, by_ms: int, *owner_indexes: str) -> None:
    """Make a session older together with its entries in owner indexes under caps."""
    await age(redis, session_id, by_ms)
    for owner_index in owner_indexes:
        for key in Keys("").capped_index(owner_index):
            if await redis.zscore(key, session_id) is not None:
                await redis.zincrby(key, -by_ms, session_id)
