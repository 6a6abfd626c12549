"""Redis is full: changes are told to try again, reads and endings go on, and nothing is half-written."""

from tests.faults.lengths import LENGTHS, Length
from tests.faults.load import READS, Load
from tests.faults.remains import half_written
from tests.redis_server import RedisServer

_ROOM_BYTES = 30_000


@LENGTHS
def test_a_full_redis_takes_no_changes_and_all_else_goes_on(
    own_redis: RedisServer, urls: list[str], length: Length
) -> None:
    with Load(urls, clients=length.clients) as load:
        load.until_answered(length.steady)
        own_redis.command(
            "CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", _used(own_redis) + _ROOM_BYTES
        )
        load.until_failed(length.steady // 10)
        at_the_brim = half_written(own_redis.url)
        own_redis.command("CONFIG", "SET", "maxmemory", 1)
        load.for_seconds(length.seconds)
        own_redis.command("CONFIG", "SET", "maxmemory", 0)
        load.until_well()

    assert load.wrong == []
    assert {answer.status for answer in load.failures()} == {503}
    assert load.failures(READS | {"delete"}) == []
    assert at_the_brim + half_written(own_redis.url) == []


def _used(server: RedisServer) -> int:
    memory = server.command("INFO", "memory")
    assert isinstance(memory, dict)
    return int(memory["used_memory"])
