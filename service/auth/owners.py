"""Whose a session is: asked before a user's request goes on, since a session never changes its user."""

from service.errors import SessionNotFound
from service.redis_client.client import RedisClient
from service.sessions.keys import Keys
from service.sessions.session import is_issued_id

_FIELDS = (b"userId",)


class Owners:
    def __init__(self, redis: RedisClient, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def require(self, session_id: str, user_id: str) -> None:
        """Raises SessionNotFound unless the session is, or was, this user's: of others' as of what never was.

        An ended one is its user's for as long as its tombstone names that: until it is swept.
        """
        if not is_issued_id(session_id) or user_id.encode() not in await self._users_of(session_id):
            raise SessionNotFound(session_id)

    async def _users_of(self, session_id: str) -> list[bytes | None]:
        keys = [self._keys.session(session_id), self._keys.tombstone(session_id)]
        return [user_id for (user_id,), _ in await self._redis.read_hashes(keys, _FIELDS)]
