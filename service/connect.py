"""A Redis URL becomes a client that never retries by itself and never waits without end."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

MAX_CONNECTIONS = 64


def client_for(url: str, timeout_seconds: float) -> Redis:
    """A client for `redis://`, `rediss://` or `unix://`. It connects when it is first used."""
    bounded = {
        "protocol": 2,
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "retry": Retry(NoBackoff(), 0),
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    pool = BlockingConnectionPool.from_url(
        url, client_name="session-service", max_connections=MAX_CONNECTIONS, timeout=timeout_seconds, **bounded
    )
    pool.connection_kwargs.update(bounded)  # the URL's options may not lift these
    pool.timeout = timeout_seconds
    return Redis.from_pool(pool)
