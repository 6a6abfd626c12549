"""How an error reply is named: the store's trouble, or a fault of our own; and what becomes of scripts forgotten."""

from collections.abc import Sequence

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.lane import (
    Lane,
    Reply,
    ScriptFault,
    ScriptsForgotten,
    ServerDemoted,
    StoreRefused,
    carried_out_in_order,
    named,
)
from service.metrics import Metrics
from service.scripts import SWEEP, TOUCH, Command
from service.store_watch import StoreWatch
from tests.counted import counted
from tests.store.evidence import KEYS
from tests.test_scripts import SCRIPTS

AN_ID = "ab90c3cc-0d44-4b50-8888-8dd25736052a"
SWEPT = SWEEP.command(KEYS.of(AN_ID), id=AN_ID, retention_ms=1)
TOUCHED = TOUCH.command(KEYS.of(AN_ID), id=AN_ID, retention_ms=1)

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
    assert type(named(error)) is ScriptFault


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
    assert type(named(error)) is StoreRefused


def test_a_server_that_takes_no_changes_was_demoted() -> None:
    assert type(named(ReadOnlyError("You can't write against a read only replica." + IN_A_SCRIPT))) is ServerDemoted


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError(), "timeout"),
        (RedisTimeoutError(), "timeout"),
        (ConnectionRefusedError(), "connection"),
        (RedisConnectionError(), "connection"),
        (StoreRefused("OOM command not allowed"), "refused"),
        (ServerDemoted("You can't write against a read only replica."), "demoted"),
        (ValueError("what nobody thought of"), "other"),
    ],
)
def test_trouble_is_counted_by_its_kind(error: Exception, kind: str) -> None:
    metrics = Metrics()

    StoreWatch(metrics).outage.begins(error)

    assert counted(metrics.store_errors) == {kind: 1}


@pytest.fixture
async def forgetful(lane: Lane, real_redis: Redis) -> Lane:
    """A lane to a server that knows one of the scripts only."""
    await lane.everywhere(("PING",))  # a connection makes its server know them all
    await real_redis.script_flush()
    await real_redis.script_load(SWEEP.text)
    return lane


async def test_a_script_that_was_forgotten_and_stands_alone_is_sent_as_text(forgetful: Lane) -> None:
    assert await forgetful.change(SWEPT, TOUCHED) == [[b"missing"], [b"missing"]]


@pytest.mark.parametrize("kind", ["server", "sentinel"])
async def test_a_script_that_was_forgotten_is_not_sent_again_in_an_order(forgetful: Lane, real_redis: Redis) -> None:
    await real_redis.config_resetstat()

    with pytest.raises(ScriptsForgotten):
        await forgetful.in_order(TOUCHED, SWEPT)

    statistics = await real_redis.info("commandstats")
    assert statistics["cmdstat_evalsha"]["calls"] == 1 + 1
    assert "cmdstat_eval" not in statistics


@pytest.mark.parametrize("kind", ["server", "sentinel"])
async def test_after_that_the_server_knows_every_script(forgetful: Lane, real_redis: Redis) -> None:
    with pytest.raises(ScriptsForgotten):
        await forgetful.in_order(TOUCHED)

    assert all(await real_redis.script_exists(*[script.sha for script in SCRIPTS]))
    assert await forgetful.in_order(TOUCHED, SWEPT) == [[b"missing"], [b"missing"]]


async def test_where_the_scripts_cannot_be_loaded_that_is_said() -> None:
    replies: dict[object, Reply] = {"EVALSHA": NoScriptError(""), "SCRIPT": ResponseError("NOPERM not allowed")}

    async def send(commands: Sequence[Command]) -> list[Reply]:
        return [replies[command[0]] for command in commands]

    with pytest.raises(StoreRefused) as refusal:
        await carried_out_in_order(send, [TOUCHED])

    assert refusal.value.why == "NOPERM not allowed"
