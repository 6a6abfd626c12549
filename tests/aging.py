"""Passing time without waiting for it: a session's instants and its keys' ends are moved into the past."""

from redis.asyncio import Redis

from service.sessions.keys import Keys

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


async def age_counted(redis: Redis, session_id: str, by_ms: int, *owner_indexes: str) -> None:
    """The same of one that is counted: also what lies beside its lookups is of as long ago."""
    await age(redis, session_id, by_ms)
    for owner_index in owner_indexes:
        for key in Keys("").capped_index(owner_index):
            if await redis.zscore(key, session_id) is not None:
                await redis.zincrby(key, -by_ms, session_id)
