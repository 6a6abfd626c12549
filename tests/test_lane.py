"""How an error reply is named: the store's trouble, or a fault of our own."""

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.lane import ScriptFault, ServerDemoted, StoreRefused, named
from service.metrics import Metrics
from service.store_watch import StoreWatch
from tests.counted import counted

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
