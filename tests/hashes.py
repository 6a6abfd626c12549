"""Hashes of ids in logs and traces, keyed with the shared secret in Redis."""

from typing import cast

import redis
from redis.asyncio import Redis

from service.shared_secret import SharedSecret
from tests.redis_contents import KEYS


async def hashed_in(client: Redis, id_: str) -> str:
    return _hashed(id_, cast(bytes | None, await client.get(KEYS.secret)))


def hashed_at(url: str, id_: str) -> str:
    """Like `hashed_in`, with a new connection to `url`."""
    with redis.Redis.from_url(url) as client:
        return _hashed(id_, cast(bytes | None, client.get(KEYS.secret)))


def _hashed(id_: str, digits: bytes | None) -> str:
    assert digits is not None
    secret = SharedSecret()
    secret.load(digits.decode())
    return secret.hash_id(id_)
