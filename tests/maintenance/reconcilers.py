"""Create reconcilers, and read the owner indexes that they repair."""

from redis.asyncio import Redis

from service.maintenance.index_repair import IndexRemoval, IndexRepair
from service.maintenance.lost_sessions import LostSessions
from service.maintenance.reconciler import Reconciler
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from tests.conftest import new_session_events, redis_client_for
from tests.redis_contents import KEYS

OWNER_INDEX_LIFETIME_MS = 1_000_000_000


def new_reconciler(redis: Redis, metrics: Metrics) -> Reconciler:
    return reconciler_with(redis_client_for(redis), metrics)


def reconciler_with(redis_client: RedisClient, metrics: Metrics) -> Reconciler:
    index_removal = IndexRemoval(redis_client, KEYS)
    index_repair = IndexRepair(redis_client, KEYS, index_removal, owner_index_lifetime_ms=OWNER_INDEX_LIFETIME_MS)
    return Reconciler(
        redis_client, KEYS, index_repair, LostSessions(redis_client, KEYS, new_session_events(metrics)), metrics
    )


async def entries_of(redis: Redis, owner_index: str) -> dict[str, int]:
    entries: list[tuple[bytes, float]] = await redis.zrange(owner_index, 0, -1, withscores=True)  # type: ignore[assignment]
    return {session_id.decode(): int(score) for session_id, score in entries}
