"""The service responds to generated input with HTTP or closes the connection, and keeps working.

`make test` sends a few hundred inputs of a fixed seed. `make fuzz` sends many inputs of a new seed and prints it.
The variables FUZZ_SEED and FUZZ_INPUTS repeat a run.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from uuid import uuid4

import pytest

from tests.auth.conftest import AUDIENCE, ISSUER, SECRET
from tests.conftest import AGENT, USER
from tests.fuzz.generator import API_KEY, FUZZ_INPUTS, FUZZ_SEED, input_of, valid_requests_of
from tests.fuzz.raw_client import Input, Output, exchange_all
from tests.fuzz.responses import InvalidResponse, Response, parse_responses
from tests.memory import resident_kib
from tests.redis_server import RedisServer
from tests.replica import Replica

MAX_GROWTH_KIB = 100 * 1024

TIMEOUTS = {
    "SESSION_STORE_TIMEOUT_SECONDS": "20",  # Redis never times out, even on a busy machine
    "SESSION_REQUEST_TIMEOUT_SECONDS": "2",  # incomplete requests end soon
    "SESSION_KEEP_ALIVE_SECONDS": "2",
}
PROTECTED = {
    "SESSION_API_KEYS": f"fuzz:admin:sha256:{hashlib.sha256(API_KEY.encode()).hexdigest()}",
    "SESSION_JWT_ISSUER": ISSUER,
    "SESSION_JWT_AUDIENCE": AUDIENCE,
    "SESSION_JWT_SECRET": SECRET,
    "SESSION_ERROR_FORMAT": "flat",
    "SESSION_RATE_PER_ADDRESS": "1000000/second",
    "SESSION_RATE_PER_CALLER": "1000000/second",
    "SESSION_MAX_PER_USER": "5",
    "SESSION_CAP_POLICY": "evict",
    "SESSION_CORS_ORIGINS": "https://chat.example",
    "TRUSTED_PROXIES": "127.0.0.1",
}

pytestmark = pytest.mark.timeout(60 + FUZZ_INPUTS // 5)


class FuzzRun(NamedTuple):
    """The inputs and outputs of a run, and how much the memory of the service has grown."""

    replica: Replica
    inputs: list[Input]
    outputs: list[Output]
    growth_kib: int


@pytest.fixture(scope="module", params=[{"SESSION_ALLOWED_HOSTS": "*"}, PROTECTED], ids=["default", "protected"])
def settings(request: pytest.FixtureRequest) -> dict[str, str]:
    settings: dict[str, str] = request.param
    return settings


@pytest.fixture(scope="module")
def replica(settings: dict[str, str], redis_server: RedisServer) -> Iterator[Replica]:
    with _started(Replica(REDIS_URL=redis_server.url, **TIMEOUTS, **settings), redis_server) as replica:
        yield replica


@pytest.fixture(scope="module")
def patient_replica(settings: dict[str, str], redis_server: RedisServer) -> Iterator[Replica]:
    """A replica that waits for slow clients, as they are on a busy machine."""
    with _started(Replica(REDIS_URL=redis_server.url, **settings), redis_server) as replica:
        yield replica


@contextmanager
def _started(replica: Replica, redis_server: RedisServer) -> Iterator[Replica]:
    redis_server.command("FLUSHALL")
    replica.start()
    yield replica
    replica.stop()
    redis_server.command("FLUSHALL")


@pytest.fixture(scope="module")
def fuzz_run(replica: Replica) -> FuzzRun:
    inputs = [input_of(number) for number in range(FUZZ_INPUTS)]
    before_kib = resident_kib(replica.pid)
    outputs = asyncio.run(exchange_all(replica.url, inputs))
    return FuzzRun(replica, inputs, outputs, resident_kib(replica.pid) - before_kib)


def test_all_responses_are_valid_and_none_is_a_server_error(fuzz_run: FuzzRun) -> None:
    faults = [_fault_of(number, fuzz_run) for number in range(FUZZ_INPUTS)]

    assert [fault for fault in faults if fault is not None] == []


def test_the_service_closes_every_connection(fuzz_run: FuzzRun) -> None:
    exchanges = zip(range(FUZZ_INPUTS), fuzz_run.inputs, fuzz_run.outputs, strict=True)

    left_open = [number for number, client, output in exchanges if not (client.disconnects or output.was_closed)]

    assert [_description_of(number, fuzz_run) for number in left_open] == []


def test_most_inputs_get_beyond_the_parser(fuzz_run: FuzzRun) -> None:
    answered = [output for output in fuzz_run.outputs if output.received]
    routed = [output for output in answered if b" 200 OK\r\n" in output.received or b" 401 " in output.received]

    assert len(answered) > FUZZ_INPUTS * 0.6
    assert len(routed) > FUZZ_INPUTS * 0.2


def test_the_service_is_ready_afterwards(fuzz_run: FuzzRun) -> None:
    assert fuzz_run.replica.call("GET", "/readyz")[0] == 200


def test_memory_is_bounded(fuzz_run: FuzzRun) -> None:
    assert fuzz_run.growth_kib < MAX_GROWTH_KIB


def test_the_log_has_no_errors(fuzz_run: FuzzRun) -> None:
    lines = fuzz_run.replica.output.splitlines()

    assert [line for line in lines if "Traceback" in line or '"level":"error"' in line] == []


def test_the_same_requests_have_the_same_responses_however_they_are_split(patient_replica: Replica) -> None:
    whole = _statuses(patient_replica, lambda content: [content])
    in_two = _statuses(patient_replica, lambda content: [content[: len(content) // 2], content[len(content) // 2 :]])
    by_the_byte = _statuses(patient_replica, lambda content: [bytes([byte]) for byte in content])

    assert whole == in_two == by_the_byte
    assert {statuses[-1] for statuses in whole} == {200}


def _fault_of(number: int, fuzz_run: FuzzRun) -> str | None:
    """Describe the fault of an output. Returns None if it has none."""
    output, content = fuzz_run.outputs[number], fuzz_run.inputs[number].content
    if fuzz_run.inputs[number].disconnects or not output.was_closed:
        return None
    try:
        responses = parse_responses(output.received, allow_missing_bodies=b"HEAD" in content)
        faults = [response for response in responses if response.status >= 500 or not _has_code(response, content)]
    except InvalidResponse as error:
        return f"{error}: {_description_of(number, fuzz_run)}"
    return f"{faults}: {_description_of(number, fuzz_run)}" if faults else None


def _has_code(response: Response, content: bytes) -> bool:
    """Whether an error has a code. Responses to HEAD have none, nor have aiohttp's 412 and 416 of a static file."""
    return (
        response.status < 400
        or response.status in (412, 416)
        or (b"HEAD" in content and not response.body)
        or bool(response.code)
    )


def _description_of(number: int, fuzz_run: FuzzRun) -> str:
    return f"FUZZ_SEED={FUZZ_SEED}, input {number}: {fuzz_run.inputs[number].pieces!r}"[:3000]


def _statuses(replica: Replica, split: Callable[[bytes], list[bytes]]) -> list[list[int]]:
    inputs = [Input(split(_with_new_ids(valid_requests_of(number)))) for number in range(FUZZ_INPUTS // 10)]
    outputs = asyncio.run(exchange_all(replica.url, inputs))
    return [
        [response.status for response in parse_responses(output.received, allow_missing_bodies=True)]
        for output in outputs
    ]


def _with_new_ids(content: bytes) -> bytes:
    """Replace the agent and the user, so that concurrent connections do not affect each other."""
    return content.replace(AGENT.encode(), str(uuid4()).encode()).replace(USER.encode(), str(uuid4()).encode())
