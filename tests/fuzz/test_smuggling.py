"""Smuggled requests: the service executes only requests that the balancer forwards.

The balancer adds a request id to each request, unless the client sends one, and logs it. A smuggled request appears in
the service's log with an id that the balancer did not log, or logged less often.
"""

import asyncio
import json
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest

from tests.balancer import Balancer
from tests.fuzz.generator import FUZZ_INPUTS, input_of
from tests.fuzz.raw_client import Input, Output, exchange_all
from tests.fuzz.responses import parse_responses
from tests.fuzz.smuggled_requests import SMUGGLED_REQUESTS
from tests.redis_server import RedisServer
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

pytestmark = [
    pytest.mark.skipif(
        shutil.which("haproxy") is None, reason="needs HAProxy: apt-get install haproxy, or brew install haproxy"
    ),
    pytest.mark.timeout(100 + FUZZ_INPUTS // 5),
]

LAST_REQUEST = b"GET /nowhere HTTP/1.1\r\nHost: last\r\nConnection: close\r\n\r\n"
TIMEOUT_SECONDS = 1
"""How long an attacker waits. The balancer keeps connections with incomplete requests open for longer."""

LOG_SECONDS = 40
"""The balancer logs a request when its connection ends, at the latest after `timeout client`."""

SMUGGLING = [Input([content, LAST_REQUEST], timeout_seconds=TIMEOUT_SECONDS) for content in SMUGGLED_REQUESTS]
GENERATED = [input_of(number)._replace(timeout_seconds=TIMEOUT_SECONDS) for number in range(FUZZ_INPUTS)]


class Traffic(NamedTuple):
    """Request ids in both logs, and what other clients received meanwhile."""

    victims: dict[str, Output]
    """The output of each victim by the session id that it requested."""
    forwarded: Counter[str]
    """The ids of requests that the balancer forwarded."""
    executed: Counter[str]
    """The ids of requests that the service executed."""
    unreadable: int
    """The number of forwarded requests that the service could not parse. Their log lines have other ids."""

    @property
    def has_unlogged_requests(self) -> bool:
        """Whether the service has received requests that the balancer has not logged."""
        return bool(self.executed - self.forwarded) or self.number_received > self.forwarded.total()

    @property
    def number_received(self) -> int:
        return self.executed.total() + self.unreadable


@pytest.fixture(scope="module", params=[SMUGGLING, GENERATED], ids=["smuggling", "generated"])
def traffic(
    request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Traffic:
    """Send each input together with the request of a victim."""
    folder = tmp_path_factory.mktemp("balancer")
    redis_server.command("FLUSHALL")
    replica = Replica(REDIS_URL=redis_server.url, SESSION_STORE_TIMEOUT_SECONDS="20", SESSION_ALLOWED_HOSTS="*")
    replica.start()
    balancer = Balancer(folder, [replica.url.removeprefix("http://")])
    balancer.start()
    session_ids = [str(uuid4()) for _ in request.param]
    pairs = zip(request.param, map(_victim_of, session_ids), strict=True)
    outputs = asyncio.run(exchange_all(balancer.url, [client for pair in pairs for client in pair]))
    replica.stop()
    traffic = _traffic_in_logs(dict(zip(session_ids, outputs[1::2], strict=True)), folder / "log", replica)
    balancer.stop()
    redis_server.command("FLUSHALL")
    return traffic


def _traffic_in_logs(victims: dict[str, Output], balancer_log: Path, replica: Replica) -> Traffic:
    """Read the logs again until the balancer has logged all requests, for at most LOG_SECONDS."""
    deadline = time.monotonic() + LOG_SECONDS
    traffic = _read_logs(victims, balancer_log, replica)
    while traffic.has_unlogged_requests and time.monotonic() < deadline:
        time.sleep(0.1)
        traffic = _read_logs(victims, balancer_log, replica)
    return traffic


def _read_logs(victims: dict[str, Output], balancer_log: Path, replica: Replica) -> Traffic:
    complete_lines = balancer_log.read_text().rpartition("\n")[0]
    balanced = [line for line in _events(complete_lines, "balanced") if line["replica"] == "replica1"]
    requests = _events(replica.output, "request")
    executed = [line for line in requests if line["route"] != "unread"]
    return Traffic(victims, _request_ids(balanced), _request_ids(executed), len(requests) - len(executed))


def test_the_service_executes_only_forwarded_requests(traffic: Traffic) -> None:
    assert traffic.executed - traffic.forwarded == Counter()


def test_the_service_does_not_parse_the_remainder_of_a_request(traffic: Traffic) -> None:
    assert traffic.number_received <= traffic.forwarded.total()


def test_each_client_receives_the_response_to_its_own_request(traffic: Traffic) -> None:
    details = {session_id: _error_details_in(output) for session_id, output in traffic.victims.items()}

    assert details == {session_id: [{"sessionId": session_id}] for session_id in traffic.victims}


def test_some_of_the_inputs_reach_the_service(traffic: Traffic) -> None:
    assert traffic.executed.total() > len(traffic.victims)


def _victim_of(session_id: str) -> Input:
    return Input([f"GET {SESSIONS}/{session_id} HTTP/1.1\r\nHost: others\r\nConnection: close\r\n\r\n".encode()])


def _error_details_in(output: Output) -> list[Any]:
    responses = parse_responses(output.received, allow_missing_bodies=False)
    return [json.loads(response.body)["details"] for response in responses]


def _events(log: str, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("event") == event]


def _request_ids(lines: list[dict[str, Any]]) -> Counter[str]:
    return Counter(line["request_id"] for line in lines)
