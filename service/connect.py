"""A Redis URL becomes a client that never retries by itself and never waits without end."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from service.settings import CannotStart

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


def client_of_the_settings(url: str, timeout_seconds: float) -> Redis:
    """The same for the URL that was set. Raises CannotStart, in words of our own: others may hold the password."""
    try:
        client = client_for(url, timeout_seconds)
        client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, RedisError):
        raise CannotStart(
            "REDIS_URL: cannot be understood; a '/', '#', '?' or '@' in a password is written as %2F, %23, %3F or %40, "
            "and options are those of redis-py."
        ) from None
    return client
