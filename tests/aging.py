"""Passing time without waiting for it: a session's instants and its keys' ends are moved into the past."""

from redis.asyncio import Redis

from service.life.keys import Keys

_INSTANTS = ("createdAt", "lastActivity", "renewedAt", "expiresAt")


async def age(redis: Redis, session_id: str, by_ms: int, *, keys: Keys | None = None) -> None:
    """Make a session `by_ms` older, all at once, as if that time had passed since everything that happened to it."""
    key = (keys or Keys("")).of(session_id)
    ends = {name: await redis.pexpiretime(name) for name in (key.session, key.tombstone)}
    async with redis.pipeline(transaction=True) as pipeline:
        if ends[key.session] > 0:
            for instant in _INSTANTS:
                pipeline.hincrby(key.session, instant, -by_ms)
            pipeline.pexpireat(key.session, ends[key.session] - by_ms)
        if ends[key.tombstone] > 0:
            pipeline.hincrby(key.tombstone, "expiresAt", -by_ms)
            pipeline.pexpireat(key.tombstone, ends[key.tombstone] - by_ms)
        for index in (key.expiry, key.warning, key.created):
            if await redis.zscore(index, session_id) is not None:
                pipeline.zincrby(index, -by_ms, session_id)
        await pipeline.execute()
