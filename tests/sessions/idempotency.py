"""Helpers for tests of creations with an Idempotency-Key."""

from typing import cast

from redis.asyncio import Redis

from service.redis_client.client import RedisClient, Reply
from service.redis_client.scripts import Command
from service.sessions.idempotency import IdempotencyKey
from service.sessions.scripts import SCRIPTS
from service.sessions.session import NewSession
from tests.conftest import AGENT, USER
from tests.redis_contents import KEYS, keys_in

KEY = IdempotencyKey("web", "8e03978e-40d5-43e8-bc93-6894a57f9324")
REQUEST = NewSession(AGENT, USER, {"timeout_minutes": 60}, b'{"channel":"web","topic":{"a":1,"b":[2]}}')


class InterruptedCreation:
    """A Redis client that calls `before` and `after` around the first run of create.lua."""

    def __init__(self, redis_client: RedisClient) -> None:
        self.main = redis_client
        self.read_hash, self.read_hashes, self.query, self.execute = (
            redis_client.read_hash,
            redis_client.read_hashes,
            redis_client.query,
            redis_client.execute,
        )
        self.broadcast, self.aclose = redis_client.broadcast, redis_client.aclose
        self.before, self.after = _nothing, _nothing

    @property
    def supports_multi_slot(self) -> bool:
        return self.main.supports_multi_slot

    async def execute_ordered(self, *commands: Command) -> list[Reply]:
        if SCRIPTS.command_name(commands[-1]) != "create":
            return await self.main.execute_ordered(*commands)
        before, self.before, after, self.after = self.before, _nothing, self.after, _nothing
        await before()
        replies = await self.main.execute_ordered(*commands)
        await after()
        return replies


async def _nothing() -> None:
    """Do nothing."""


async def live_ids(redis: Redis) -> list[str]:
    """The ids of all sessions with a hash."""
    keys = [key.rpartition(":")[2] for key in await keys_in(redis) if key.startswith("session:")]
    return [key for key in keys if await redis.exists(KEYS.session(key))]


async def ids_in(redis: Redis, key: str) -> list[str]:
    ids = cast(list[bytes], await redis.zrange(key, 0, -1))
    return [session_id.decode() for session_id in ids]


async def indexed_ids(redis: Redis) -> dict[str, list[str]]:
    owner_indexes = {"user": KEYS.user(USER), "agent": KEYS.agent(AGENT)}
    return {name: await ids_in(redis, key) for name, key in owner_indexes.items()}
