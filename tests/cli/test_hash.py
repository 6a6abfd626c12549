"""`hash` shows the hashes that logs contain instead of ids."""

from redis.asyncio import Redis

from tests.cli.operator import UNKNOWN, Operator
from tests.conftest import USER
from tests.hashes import hashed_in
from tests.redis_contents import KEYS, contents


async def test_each_line_has_a_hash_and_its_id(operator: Operator, real_redis: Redis) -> None:
    await real_redis.set(KEYS.secret, "0f" * 32)

    outcome = await operator.run(f"hash {UNKNOWN} {USER.upper()}")

    session, user = await hashed_in(real_redis, UNKNOWN), await hashed_in(real_redis, USER)
    assert (outcome.code, outcome.lines) == (0, [f"{session}  {UNKNOWN}", f"{user}  {USER}"])


async def test_the_command_does_not_create_a_missing_shared_secret(operator: Operator, real_redis: Redis) -> None:
    outcome = await operator.run(f"hash {UNKNOWN}")

    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("Redis has no shared secret")
    assert await contents(real_redis) == {}
