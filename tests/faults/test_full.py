"""Redis is full: changes are told to try again, reads and endings go on, and nothing is half-written."""

from collections.abc import Iterator

import pytest

from tests.conftest import AGENT, USER
from tests.faults.conftest import SETTINGS, started
from tests.faults.lengths import LENGTHS, Length
from tests.faults.load import READS, Load
from tests.faults.proxy import Proxy
from tests.faults.remains import half_written
from tests.redis_server import RedisServer
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

_ROOM_BYTES = 30_000


@LENGTHS
def test_a_full_redis_takes_no_changes_and_all_else_goes_on(
    own_redis: RedisServer, patient_urls: list[str], length: Length
) -> None:
    with Load(patient_urls, clients=length.clients) as load:
        load.until_answered(length.steady)
        own_redis.command(
            "CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", _used(own_redis) + _ROOM_BYTES
        )
        load.until_failed(length.steady // 10)
        at_the_brim = half_written(own_redis.admin_url, load.checker.sessions)
        own_redis.command("CONFIG", "SET", "maxmemory", 1)
        load.for_seconds(length.seconds)
        own_redis.command("CONFIG", "SET", "maxmemory", 0)
        load.until_well()

    assert load.wrong == []
    assert {answer.status for answer in load.failures()} == {503}
    assert load.failures(READS | {"delete"}) == []
    assert at_the_brim + half_written(own_redis.admin_url, load.checker.sessions) == []


@pytest.fixture
def partly_closed(own_redis: RedisServer, servers: tuple[RedisServer, Proxy]) -> Iterator[str]:
    """The URL of a Redis that refuses to change users' lookups, and nothing else."""
    own_redis.command(
        "ACL", "SETUSER", "partly", "on", "nopass", "+@all", "~session:*", "~sessions:{*", "~sessions:agent:*"
    )
    yield servers[1].url.replace("redis://", "redis://partly:any@")
    own_redis.command("ACL", "DELUSER", "partly")


def test_a_creation_that_is_refused_in_part_leaves_no_session(own_redis: RedisServer, partly_closed: str) -> None:
    """As it is refused where Redis is full, and has room again a command later."""
    with started(Replica(REDIS_URL=partly_closed, **SETTINGS)) as (replica,):
        status, _ = replica.call("POST", SESSIONS, {"agentId": AGENT, "userId": USER})

    assert status == 503
    assert own_redis.command("KEYS", "session:*") == []


def _used(server: RedisServer) -> int:
    memory = server.command("INFO", "memory")
    assert isinstance(memory, dict)
    return int(memory["used_memory"])
