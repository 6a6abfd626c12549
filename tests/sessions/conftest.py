"""Fixtures of tests of sessions."""

import pytest
from redis.asyncio import Redis

from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.sessions.keys import Keys
from service.sessions.policies import Policies
from service.sessions.revocation import BulkRevocation
from service.sessions.session import new_session_id
from service.settings import Settings
from tests.conftest import AGENT, USER, new_policies, new_session_events
from tests.redis_contents import KEYS
from tests.sessions.revocation import PendingCreation


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def revocation(redis_client: RedisClient, metrics: Metrics) -> BulkRevocation:
    return BulkRevocation(redis_client, Keys(""), new_session_events(metrics))


@pytest.fixture
def policies(redis_client: RedisClient, settings: Settings) -> Policies:
    """The policies of another replica, whose changes the store has not cached."""
    return new_policies(redis_client, settings)


@pytest.fixture
async def pending(real_redis: Redis, settings: Settings) -> PendingCreation:
    """A creation that has added its id to both owner indexes."""
    creation = PendingCreation(real_redis, new_session_id(), settings)
    await creation.add_to(KEYS.agent(AGENT))
    await creation.add_to(KEYS.user(USER))
    return creation
