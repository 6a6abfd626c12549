"""Error replies of Redis become errors of the client."""

import pytest
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from service.redis_client.errors import CommandRejected, ScriptError, ServerDemoted, to_client_error

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
def test_a_failure_inside_a_script_is_a_script_error(error: ResponseError) -> None:
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
def test_a_failure_of_the_server_is_a_rejected_command_also_inside_a_script(error: ResponseError) -> None:
    assert type(to_client_error(error)) is CommandRejected


def test_a_server_that_rejects_writes_was_demoted() -> None:
    error = ReadOnlyError("You can't write against a read only replica." + IN_A_SCRIPT)

    assert type(to_client_error(error)) is ServerDemoted
