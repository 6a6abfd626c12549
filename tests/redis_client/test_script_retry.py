"""Commands are retried if Redis lost its scripts, and batches in order are not."""

from collections.abc import AsyncIterator, Sequence

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from service.redis_client.client import RedisClient, Reply
from service.redis_client.errors import CommandRejected, ScriptCacheMiss
from service.redis_client.script_retry import retry_missing_scripts_in_order
from service.redis_client.scripts import Command
from service.sessions.scripts import HEARTBEAT, SCRIPTS, SWEEP
from service.settings import Settings
from tests.conftest import create_session, new_session_store
from tests.redis_client.conftest import connected
from tests.redis_contents import KEYS
from tests.redis_server import RedisServer

AN_ID = "ab90c3cc-0d44-4b50-8888-8dd25736052a"
SWEEP_COMMAND = SWEEP.command(KEYS.of(AN_ID), id=AN_ID, retention_ms=1, owner_id="")
HEARTBEAT_COMMAND = HEARTBEAT.command(KEYS.of(AN_ID), id=AN_ID, retention_ms=1, owner_id="")
MISSING = [b"missing"]


async def calls_of(redis: Redis, command: str) -> int:
    """How often Redis ran a command since the statistics were reset."""
    statistics = await redis.info("commandstats")
    return int(statistics.get(f"cmdstat_{command}", {"calls": 0})["calls"])


@pytest.fixture
async def client(redis_client: RedisClient, real_redis: Redis) -> RedisClient:
    """A connected client of a server that has only the script of SWEEP_COMMAND in its cache."""
    await redis_client.broadcast(("PING",))  # opening a connection loads all scripts
    await real_redis.script_flush()
    await real_redis.script_load(SWEEP.text)
    await real_redis.config_resetstat()
    return redis_client


async def test_an_independent_command_is_sent_again_as_eval(client: RedisClient, real_redis: Redis) -> None:
    assert await client.execute(SWEEP_COMMAND, HEARTBEAT_COMMAND) == [MISSING, MISSING]

    assert await calls_of(real_redis, "eval") == 1


async def test_a_batch_in_order_is_not_sent_again(client: RedisClient, real_redis: Redis) -> None:
    with pytest.raises(ScriptCacheMiss):
        await client.execute_ordered(HEARTBEAT_COMMAND, SWEEP_COMMAND)

    assert await calls_of(real_redis, "evalsha") == 2
    assert await calls_of(real_redis, "eval") == 0


async def test_all_scripts_are_loaded_after_a_script_was_missing_in_a_batch(
    client: RedisClient, real_redis: Redis
) -> None:
    with pytest.raises(ScriptCacheMiss):
        await client.execute_ordered(HEARTBEAT_COMMAND)

    assert await calls_of(real_redis, "script|load") == len(SCRIPTS.load_commands())
    assert await client.execute_ordered(HEARTBEAT_COMMAND, SWEEP_COMMAND) == [MISSING, MISSING]


# Accounts that may not load scripts


@pytest.fixture
async def unprivileged_client(real_redis: Redis, redis_server: RedisServer) -> AsyncIterator[RedisClient]:
    """A client whose account may not run SCRIPT LOAD, of a server without scripts."""
    redis_server.command("ACL", "SETUSER", "unprivileged", "on", "nopass", "~*", "+@all", "-script")
    await real_redis.script_flush()
    await real_redis.config_resetstat()
    async with connected(redis_server.url.replace("unix://", "unix://unprivileged@")) as client:
        yield client
    redis_server.command("ACL", "DELUSER", "unprivileged")


async def test_without_script_load_a_batch_in_order_continues_with_one_command_at_a_time(
    unprivileged_client: RedisClient, real_redis: Redis
) -> None:
    replies = await unprivileged_client.execute_ordered(("TTL", "nothing"), HEARTBEAT_COMMAND, SWEEP_COMMAND)

    assert replies == [-2, MISSING, MISSING]
    assert (await calls_of(real_redis, "ttl"), await calls_of(real_redis, "eval")) == (1, 2)


async def test_without_script_load_redis_caches_each_script_with_its_first_eval(
    unprivileged_client: RedisClient, real_redis: Redis
) -> None:
    await unprivileged_client.execute_ordered(HEARTBEAT_COMMAND, SWEEP_COMMAND)
    await unprivileged_client.execute_ordered(HEARTBEAT_COMMAND, SWEEP_COMMAND)

    assert await calls_of(real_redis, "eval") == 2


async def test_without_script_load_a_batch_fails_if_a_later_command_ran_before_the_missing_one(
    unprivileged_client: RedisClient,
) -> None:
    await unprivileged_client.execute(HEARTBEAT_COMMAND)

    with pytest.raises(ScriptCacheMiss):
        await unprivileged_client.execute_ordered(SWEEP_COMMAND, HEARTBEAT_COMMAND)

    assert await unprivileged_client.execute_ordered(SWEEP_COMMAND, HEARTBEAT_COMMAND) == [MISSING, MISSING]


async def test_without_script_load_a_session_is_created(unprivileged_client: RedisClient, settings: Settings) -> None:
    store = new_session_store(unprivileged_client, settings)

    session = await create_session(store)

    assert (await store.get(session.id)).id == session.id


class FakeServer:
    """Replies to each command by its name."""

    def __init__(self, **replies: Reply) -> None:
        self._replies = replies
        self.received: list[object] = []

    async def send(self, commands: Sequence[Command]) -> list[Reply]:
        self.received += [command[0] for command in commands]
        return [self._replies[str(command[0])] for command in commands]


@pytest.mark.parametrize("error", ["NOPERM not allowed", "ERR unknown command 'SCRIPT'"])
async def test_without_script_load_a_batch_stops_at_the_first_error(error: str) -> None:
    out_of_memory = ResponseError("OOM command not allowed")
    server = FakeServer(EVALSHA=NoScriptError(""), SCRIPT=ResponseError(error), EVAL=out_of_memory)
    commands = [HEARTBEAT_COMMAND, SWEEP_COMMAND]
    replies = await server.send(commands)

    with pytest.raises(CommandRejected):
        await retry_missing_scripts_in_order(server.send, commands, replies, SCRIPTS)

    assert [server.received.count(name) for name in ("EVALSHA", "EVAL")] == [3, 1]


async def test_the_error_of_script_load_is_raised() -> None:
    server = FakeServer(EVALSHA=NoScriptError(""), SCRIPT=ResponseError("LOADING not yet"))
    replies = await server.send([HEARTBEAT_COMMAND])

    with pytest.raises(CommandRejected) as error:
        await retry_missing_scripts_in_order(server.send, [HEARTBEAT_COMMAND], replies, SCRIPTS)

    assert error.value.cause == "LOADING not yet"
