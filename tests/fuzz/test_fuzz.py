"""A replica under whatever may arrive: it answers in HTTP or hangs up, is never at fault, and serves on as before.

`make test` sends some hundred inputs of always the same seed. `make fuzz` sends many of a new one, which it names: with
FUZZ_SEED and FUZZ_INPUTS set, the same are sent again.
"""

import asyncio
import hashlib
import subprocess
from collections.abc import Callable, Iterator
from typing import NamedTuple
from uuid import uuid4

import pytest

from tests.auth.conftest import AUDIENCE, ISSUER, SECRET
from tests.conftest import AGENT, USER
from tests.fuzz.answers import Answer, NotHTTP, answers_in
from tests.fuzz.inputs import KEY, NUMBER, SEED, input_of, requests_of
from tests.fuzz.talk import Heard, Input, talk_at_once
from tests.redis_server import RedisServer
from tests.replica import Replica

MOST_GROWTH_KIB = 100 * 1024

PATIENT = {
    "SESSION_STORE_TIMEOUT_SECONDS": "20",  # no machine is too busy for an answer of Redis
    "SESSION_REQUEST_TIMEOUT_SECONDS": "5",  # what is not whole is not waited for
    "SESSION_KEEP_ALIVE_SECONDS": "5",
}
GUARDED = {
    "SESSION_API_KEYS": f"fuzz:admin:sha256:{hashlib.sha256(KEY.encode()).hexdigest()}",
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

pytestmark = pytest.mark.timeout(60 + NUMBER // 5)


class Trial(NamedTuple):
    """What a replica was sent and said, and how it was afterwards."""

    replica: Replica
    sent: list[Input]
    heard: list[Heard]
    growth_kib: int


@pytest.fixture(scope="module", params=[{}, GUARDED], ids=["open", "guarded"])
def replica(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[Replica]:
    redis_server.command("FLUSHALL")
    replica = Replica(REDIS_URL=redis_server.url, **PATIENT, **request.param)
    replica.start()
    yield replica
    replica.stop()
    redis_server.command("FLUSHALL")


@pytest.fixture(scope="module")
def trial(replica: Replica) -> Trial:
    sent = [input_of(number) for number in range(NUMBER)]
    before_kib = _resident_kib(replica)
    heard = asyncio.run(talk_at_once(replica.url, sent))
    return Trial(replica, sent, heard, _resident_kib(replica) - before_kib)


def test_what_arrives_is_answered_in_http_and_never_with_a_fault_of_ours(trial: Trial) -> None:
    faults = [_fault_of(number, trial) for number in range(NUMBER)]

    assert [fault for fault in faults if fault is not None] == []


def test_no_connection_is_left_open(trial: Trial) -> None:
    stayed = [number for number in range(NUMBER) if not (trial.sent[number].leaves or trial.heard[number].was_ended)]

    assert [_told(number, trial) for number in stayed] == []


def test_most_inputs_get_as_far_as_an_answer(trial: Trial) -> None:
    """Else this would try nothing but the parser's first line."""
    replies_or_none = [heard for heard in trial.heard if heard.received]
    good = [heard for heard in replies_or_none if b" 200 OK\r\n" in heard.received or b" 401 " in heard.received]

    assert len(replies_or_none) > NUMBER * 0.6
    assert len(good) > NUMBER * 0.2


def test_it_serves_as_before(trial: Trial) -> None:
    assert trial.replica.call("GET", "/readyz")[0] == 200


def test_its_memory_is_bounded(trial: Trial) -> None:
    assert trial.growth_kib < MOST_GROWTH_KIB


def test_its_log_has_no_fault(trial: Trial) -> None:
    said = trial.replica.banner

    assert [line for line in said.splitlines() if "Traceback" in line or '"level":"error"' in line] == []


def test_the_same_requests_get_the_same_answers_however_they_are_cut(replica: Replica) -> None:
    whole = _statuses(replica, lambda sent: [sent])
    in_two = _statuses(replica, lambda sent: [sent[: len(sent) // 2], sent[len(sent) // 2 :]])
    by_the_byte = _statuses(replica, lambda sent: [bytes([byte]) for byte in sent])

    assert whole == in_two == by_the_byte
    assert {statuses[-1] for statuses in whole} == {200}


def _fault_of(number: int, trial: Trial) -> str | None:
    """What is wrong with what came back; None where nothing is."""
    heard, sent = trial.heard[number], trial.sent[number].sent
    if trial.sent[number].leaves or not heard.was_ended:
        return None
    try:
        answers = answers_in(heard.received, some_have_no_body=b"HEAD" in sent)
        at_fault = [answer for answer in answers if answer.status >= 500 or not _is_in_our_words(answer, sent)]
    except NotHTTP as error:
        return f"{error}: {_told(number, trial)}"
    return f"{at_fault}: {_told(number, trial)}" if at_fault else None


def _is_in_our_words(answer: Answer, sent: bytes) -> bool:
    """An answer to HEAD has no words, nor has what aiohttp says of a file: not this range, not this ETag."""
    return (
        answer.status < 400 or answer.status in (412, 416) or (b"HEAD" in sent and not answer.body) or bool(answer.code)
    )


def _told(number: int, trial: Trial) -> str:
    return f"FUZZ_SEED={SEED}, input {number}: {trial.sent[number].pieces!r}"[:3000]


def _statuses(replica: Replica, cut: Callable[[bytes], list[bytes]]) -> list[list[int]]:
    sent = [Input(cut(_of_its_own(requests_of(number)))) for number in range(NUMBER // 10)]
    heard = asyncio.run(talk_at_once(replica.url, sent))
    return [[answer.status for answer in answers_in(one.received, some_have_no_body=True)] for one in heard]


def _of_its_own(stream: bytes) -> bytes:
    """With an agent and a user of its own: no stream is to see what another one did."""
    return stream.replace(AGENT.encode(), str(uuid4()).encode()).replace(USER.encode(), str(uuid4()).encode())


def _resident_kib(replica: Replica) -> int:
    return int(subprocess.run(["ps", "-o", "rss=", "-p", str(replica.pid)], capture_output=True, check=True).stdout)
