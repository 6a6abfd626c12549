"""How a Redis client handles errors and unknown scripts."""

from collections.abc import AsyncIterator, Sequence

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient, Reply
from service.redis_client.errors import CommandRejected, ScriptCacheMiss, ScriptError, ServerDemoted, to_client_error
from service.redis_client.factory import client_factory
from service.redis_client.monitor import StoreMonitor
from service.redis_client.script_retry import retry_missing_scripts_in_order
from service.redis_client.scripts import Command
from service.sessions.scripts import HEARTBEAT, SCRIPTS, SWEEP
from service.settings import Settings
from tests.conftest import create_session, store_on
from tests.counted import counted
from tests.redis_server import RedisServer
from tests.sessions.evidence import KEYS
from tests.sessions.test_scripts import ALL_SCRIPTS

AN_ID = "ab90c3cc-0d44-4b50-8888-8dd25736052a"
SWEPT = SWEEP.command(KEYS.of(AN_ID), id=AN_ID, retention_ms=1, owner_id="")
TOUCHED = HEARTBEAT.command(KEYS.of(AN_ID), id=AN_ID, retention_ms=1, owner_id="")

IN_A_SCRIPT = " script: 1234, on @user_script:7."


@pytest.mark.parametrize(
    "error",
    [
        ResponseError("user_script:7: attempt to index a nil value" + IN_A_SCRIPT),
        ResponseError("ERR user_script:7: attempt to index a nil value" + IN_A_SCRIPT),
        ResponseError("value is not an integer or out of range" + IN_A_SCRIPT),
        ResponseError("ERR Wrong number of args calling Redis command from script" + IN_A_SCRIPT),
        ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
    ],
)
def test_a_script_that_breaks_is_a_fault_of_ours(error: ResponseError) -> None:
    assert type(to_client_error(error)) is ScriptError


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("command not allowed when used memory > 'maxmemory'." + IN_A_SCRIPT),
        ResponseError("OOM command not allowed when used memory > 'maxmemory'." + IN_A_SCRIPT),
        ResponseError("NOREPLICAS Not enough good replicas to write." + IN_A_SCRIPT),
        ResponseError("MISCONF Redis is configured to save RDB snapshots" + IN_A_SCRIPT),
        ResponseError("LOADING Redis is loading the dataset in memory"),
        ResponseError("max number of clients reached"),
    ],
)
def test_a_server_that_does_not_do_it_is_the_stores_trouble(error: ResponseError) -> None:
    assert type(to_client_error(error)) is CommandRejected


def test_a_server_that_takes_no_changes_was_demoted() -> None:
    assert (
        type(to_client_error(ReadOnlyError("You can't write against a read only replica." + IN_A_SCRIPT)))
        is ServerDemoted
    )


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError(), "timeout"),
        (RedisTimeoutError(), "timeout"),
        (ConnectionRefusedError(), "connection"),
        (RedisConnectionError(), "connection"),
        (CommandRejected("OOM command not allowed"), "refused"),
        (ServerDemoted("You can't write against a read only replica."), "demoted"),
        (ValueError("what nobody thought of"), "other"),
    ],
)
def test_trouble_is_counted_by_its_kind(error: Exception, kind: str) -> None:
    metrics = Metrics()

    StoreMonitor(metrics).outage.record_failure(error)

    assert counted(metrics.store_errors) == {kind: 1}


@pytest.fixture
async def forgetful(redis_client: RedisClient, real_redis: Redis) -> RedisClient:
    """A lane to a server that knows one of the scripts only."""
    await redis_client.broadcast(("PING",))  # a connection makes its server know them all
    await real_redis.script_flush()
    await real_redis.script_load(SWEEP.text)
    return redis_client


async def test_a_script_that_was_forgotten_and_stands_alone_is_sent_as_text(forgetful: RedisClient) -> None:
    assert await forgetful.execute(SWEPT, TOUCHED) == [[b"missing"], [b"missing"]]


@pytest.mark.parametrize("kind", ["server", "sentinel"])
async def test_a_script_that_was_forgotten_is_not_sent_again_in_an_order(
    forgetful: RedisClient, real_redis: Redis
) -> None:
    await real_redis.config_resetstat()

    with pytest.raises(ScriptCacheMiss):
        await forgetful.execute_ordered(TOUCHED, SWEPT)

    statistics = await real_redis.info("commandstats")
    assert statistics["cmdstat_evalsha"]["calls"] == 1 + 1
    assert "cmdstat_eval" not in statistics


@pytest.mark.parametrize("kind", ["server", "sentinel"])
async def test_after_that_the_server_knows_every_script(forgetful: RedisClient, real_redis: Redis) -> None:
    with pytest.raises(ScriptCacheMiss):
        await forgetful.execute_ordered(TOUCHED)

    assert all(await real_redis.script_exists(*[script.sha for script in ALL_SCRIPTS]))
    assert await forgetful.execute_ordered(TOUCHED, SWEPT) == [[b"missing"], [b"missing"]]


@pytest.fixture
async def unloading(real_redis: Redis, redis_server: RedisServer) -> AsyncIterator[RedisClient]:
    """A lane of an account that may not load scripts, to a server that knows none."""
    redis_server.command("ACL", "SETUSER", "unloading", "on", "nopass", "~*", "+@all", "-script")
    await real_redis.script_flush()
    await real_redis.config_resetstat()
    source = client_factory(
        redis_server.url.replace("unix://", "unix://unloading@"), 2, StoreMonitor(Metrics()), SCRIPTS
    )
    redis_client = source.new_client()
    yield redis_client
    await redis_client.aclose()
    await source.aclose()
    redis_server.command("ACL", "DELUSER", "unloading")


async def test_where_scripts_may_not_be_loaded_an_order_is_kept_by_sending_one_after_the_other(
    unloading: RedisClient, real_redis: Redis
) -> None:
    assert await unloading.execute_ordered(("TTL", "nothing"), TOUCHED, SWEPT) == [-2, [b"missing"], [b"missing"]]

    statistics = await real_redis.info("commandstats")
    assert (statistics["cmdstat_ttl"]["calls"], statistics["cmdstat_eval"]["calls"]) == (1, 2)


async def test_where_they_may_not_be_loaded_the_server_learns_them_all_the_same(
    unloading: RedisClient, real_redis: Redis
) -> None:
    await unloading.execute_ordered(TOUCHED, SWEPT)
    await unloading.execute_ordered(TOUCHED, SWEPT)

    assert (await real_redis.info("commandstats"))["cmdstat_eval"]["calls"] == 2


async def test_where_they_may_not_be_loaded_what_came_before_its_turn_is_said_to_have(
    unloading: RedisClient, real_redis: Redis
) -> None:
    await unloading.execute(TOUCHED)

    with pytest.raises(ScriptCacheMiss):
        await unloading.execute_ordered(SWEPT, TOUCHED)

    assert await unloading.execute_ordered(SWEPT, TOUCHED) == [[b"missing"], [b"missing"]]


async def test_where_they_may_not_be_loaded_a_creation_is_done(unloading: RedisClient, settings: Settings) -> None:
    store = store_on(unloading, settings)

    session = await create_session(store)

    assert (await store.get(session.id)).id == session.id


class Answering:
    """A server that answers commands by their names, and remembers what it was asked."""

    def __init__(self, **replies: Reply) -> None:
        self._replies = replies
        self.asked: list[object] = []

    async def send(self, commands: Sequence[Command]) -> list[Reply]:
        self.asked += [command[0] for command in commands]
        return [self._replies[str(command[0])] for command in commands]


@pytest.mark.parametrize("refusal", ["NOPERM not allowed", "ERR unknown command 'SCRIPT'"])
async def test_where_they_may_not_be_loaded_nothing_is_sent_behind_an_error(refusal: str) -> None:
    full = ResponseError("OOM command not allowed")
    server = Answering(EVALSHA=NoScriptError(""), SCRIPT=ResponseError(refusal), EVAL=full)

    with pytest.raises(CommandRejected):
        await retry_missing_scripts_in_order(
            server.send, [TOUCHED, SWEPT], await server.send([TOUCHED, SWEPT]), SCRIPTS
        )

    assert [server.asked.count(name) for name in ("EVALSHA", "EVAL")] == [3, 1]


async def test_where_the_scripts_cannot_be_loaded_that_is_said() -> None:
    server = Answering(EVALSHA=NoScriptError(""), SCRIPT=ResponseError("LOADING not yet"))

    with pytest.raises(CommandRejected) as refusal:
        await retry_missing_scripts_in_order(server.send, [TOUCHED], await server.send([TOUCHED]), SCRIPTS)

    assert refusal.value.cause == "LOADING not yet"
