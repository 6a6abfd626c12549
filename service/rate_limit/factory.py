"""The door that the settings ask for."""

from service.api.client_address import ClientAddresses
from service.errors import StartupError
from service.observability.metrics import Metrics
from service.rate_limit.buckets import Buckets
from service.rate_limit.limit import allowance
from service.rate_limit.limiter import RateLimiter
from service.redis_client.client import RedisClient
from service.sessions.keys import Keys
from service.settings import Settings


def rate_limiter_for(
    settings: Settings, addresses: ClientAddresses, redis: RedisClient, keys: Keys, metrics: Metrics
) -> RateLimiter | None:
    """None where nothing is limited. On the lane, no change may wait for replicas. Raises StartupError."""
    of_address = allowance("address", settings.rate_per_address, settings.guesses_per_address)
    of_caller = allowance("caller", settings.rate_per_caller, settings.guesses_per_caller)
    if of_caller and not settings.requires_authentication:
        name = "SESSION_RATE_PER_CALLER" if of_caller.requests else "SESSION_GUESSES_PER_CALLER"
        raise StartupError(f"{name}: limits callers, who are known only where there are keys or tokens")
    if not (of_address or of_caller):
        return None
    return RateLimiter(addresses, keys, Buckets(redis), of_address, of_caller, metrics.requests_limited)
