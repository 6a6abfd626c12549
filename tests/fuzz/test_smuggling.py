"""Requests hidden in others, through the balancer: what it takes for a body is never a request to the replica.

The logs of both prove it. The balancer gives each request that it sees an id, or takes the client's, and logs it. A
replica that took one with an id that the balancer had not given it, or had given it less often, was fooled.
"""

import asyncio
import json
import shutil
from collections import Counter
from typing import Any, NamedTuple
from uuid import uuid4

import pytest

from tests.balancer import Balancer
from tests.fuzz.answers import answers_in
from tests.fuzz.inputs import NUMBER, input_of
from tests.fuzz.smuggled import SHAPES
from tests.fuzz.talk import Heard, Input, talk_at_once
from tests.redis_server import RedisServer
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

pytestmark = [
    pytest.mark.skipif(
        shutil.which("haproxy") is None, reason="needs HAProxy: apt-get install haproxy, or brew install haproxy"
    ),
    pytest.mark.timeout(60 + NUMBER // 5),
]

LAST = b"GET /nowhere HTTP/1.1\r\nHost: last\r\nConnection: close\r\n\r\n"
NOT_FOR_LONG = 3
"""So many seconds: the balancer waits longer for the rest of a request than there is to see."""
MADE_TO_SMUGGLE = [Input([shape, LAST], wait_seconds=NOT_FOR_LONG) for shape in SHAPES]
OF_THE_FUZZ = [input_of(number)._replace(wait_seconds=NOT_FOR_LONG) for number in range(NUMBER)]


class Traffic(NamedTuple):
    """What others heard meanwhile, and the ids in both logs: of what was given to the replica, and of what it took."""

    others: dict[str, Heard]
    given: Counter[str]
    taken: Counter[str]
    unread: int
    """How often the replica was given what it could not read: its log has another id then."""


@pytest.fixture(scope="module", params=[MADE_TO_SMUGGLE, OF_THE_FUZZ], ids=["made to smuggle", "of the fuzz"])
def traffic(
    request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Traffic:
    """Smugglers', and between them that of others, who ask for a session each that nobody else asks for."""
    folder = tmp_path_factory.mktemp("balancer")
    redis_server.command("FLUSHALL")
    replica = Replica(REDIS_URL=redis_server.url, SESSION_STORE_TIMEOUT_SECONDS="20")
    replica.start()
    balancer = Balancer(folder, [replica.url.removeprefix("http://")])
    balancer.start()
    sessions = [str(uuid4()) for _ in request.param]
    pairs = zip(request.param, map(_asking_for, sessions), strict=True)
    heard = asyncio.run(talk_at_once(balancer.url, [client for pair in pairs for client in pair]))
    replica.stop()
    balancer.stop()
    redis_server.command("FLUSHALL")
    given = [line for line in _lines((folder / "log").read_text(), "balanced") if line["replica"] == "replica1"]
    taken = _lines(replica.banner, "request")
    read = [line for line in taken if line["route"] != "unread"]
    return Traffic(dict(zip(sessions, heard[1::2], strict=True)), _ids(given), _ids(read), len(taken) - len(read))


def test_the_replica_takes_no_request_that_the_balancer_did_not_give_it(traffic: Traffic) -> None:
    assert traffic.taken - traffic.given == Counter()


def test_nor_does_it_meet_what_is_left_of_one(traffic: Traffic) -> None:
    assert traffic.taken.total() + traffic.unread <= traffic.given.total()


def test_nobody_gets_the_answer_of_another(traffic: Traffic) -> None:
    told = {
        asked: [json.loads(answer.body)["details"] for answer in _answers(heard)]
        for asked, heard in traffic.others.items()
    }

    assert told == {asked: [{"sessionId": asked}] for asked in traffic.others}


def test_there_was_something_to_take(traffic: Traffic) -> None:
    """Else this would try the balancer alone."""
    assert traffic.taken.total() > len(traffic.others)


def _asking_for(session_id: str) -> Input:
    return Input([f"GET {SESSIONS}/{session_id} HTTP/1.1\r\nHost: others\r\nConnection: close\r\n\r\n".encode()])


def _answers(heard: Heard) -> list[Any]:
    return answers_in(heard.received, some_have_no_body=False)


def _lines(log: str, event: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [line for line in found if line.get("event") == event]


def _ids(lines: list[dict[str, Any]]) -> Counter[str]:
    return Counter(line["request_id"] for line in lines)
