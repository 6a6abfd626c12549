"""While Redis is out of memory, creations and updates fail with 503. Reads, deletions and expiry continue."""

from collections.abc import AsyncIterator

import pytest

from service.errors import StoreUnavailable
from service.observability.metrics import Metrics
from service.redis_client.factory import client_factory
from service.redis_client.monitor import StoreMonitor
from service.sessions.scripts import SCRIPTS
from service.sessions.store import SessionStore
from service.settings import Settings
from tests.conftest import AGENT, USER, create_session, new_session_store
from tests.faults.conftest import urls_of
from tests.faults.integrity import incomplete_sessions
from tests.faults.load import READS, Load
from tests.faults.scales import SCALES, Scale
from tests.redis_server import RedisServer
from tests.replica import Replica

_FREE_BYTES = 30_000


@SCALES
def test_a_full_redis_rejects_only_writes(own_redis: RedisServer, direct_replicas: list[Replica], scale: Scale) -> None:
    with Load(urls_of(direct_replicas), clients=scale.clients) as load:
        load.wait_for_successes(scale.requests)
        own_redis.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        own_redis.command("CONFIG", "SET", "maxmemory", used_memory(own_redis) + _FREE_BYTES)
        load.wait_for_failures(scale.requests // 10)
        incomplete_when_full = incomplete_sessions(own_redis.admin_url, load.checker.sessions)
        own_redis.command("CONFIG", "SET", "maxmemory", 1)
        load.run_for(scale.seconds)
        own_redis.command("CONFIG", "SET", "maxmemory", 0)
        load.wait_until_stable()

    assert load.violations == []
    assert load.failure_statuses == {503}
    assert load.failures(READS | {"delete"}) == []
    assert incomplete_when_full + incomplete_sessions(own_redis.admin_url, load.checker.sessions) == []


def used_memory(server: RedisServer) -> int:
    memory = server.command("INFO", "memory")
    assert isinstance(memory, dict)
    return int(memory["used_memory"])


@pytest.fixture
async def restricted_store(own_redis: RedisServer) -> AsyncIterator[SessionStore]:
    """A store whose Redis user may not write to the owner index of users."""
    own_redis.command(
        "ACL", "SETUSER", "restricted", "on", "nopass", "+@all", "~session:*", "~sessions:{*", "~sessions:agent:*"
    )
    url = own_redis.url.replace("unix://", "unix://restricted:any@")
    factory = client_factory(url, 10, StoreMonitor(Metrics()), SCRIPTS)
    client = factory.new_client()
    yield new_session_store(client, Settings())
    await client.aclose()
    await factory.aclose()
    own_redis.command("ACL", "DELUSER", "restricted")


async def test_a_creation_that_is_rejected_in_part_leaves_no_session(
    own_redis: RedisServer, restricted_store: SessionStore
) -> None:
    with pytest.raises(StoreUnavailable):
        await create_session(restricted_store, AGENT, USER)

    assert own_redis.command("KEYS", "session:*") == []
