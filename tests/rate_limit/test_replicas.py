"""Three replicas share exact limits when many requests arrive concurrently, on each kind of Redis servers."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence

import aiohttp
import pytest

from tests.auth.conftest import ENTRIES, key_headers
from tests.conftest import AGENT, USER, StartReplica
from tests.rate_limit.conftest import UNKNOWN_ID, from_address
from tests.redis_server import RedisServer
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

NEW_SESSION = {"agentId": AGENT, "userId": USER}
SETTINGS = {
    "TRUSTED_PROXIES": "127.0.0.1",
    "SESSION_API_KEYS": ENTRIES,
    "SESSION_RATE_PER_ADDRESS": "50/hour",
    "SESSION_RATE_PER_CALLER": "60/hour",
    "SESSION_GUESSES_PER_ADDRESS": "20/hour",
    "SESSION_GUESSES_PER_CALLER": "off",
}
Responses = Counter[tuple[int, str | None]]


@pytest.fixture(scope="module", params=["redis_server", "sentinel_servers", "cluster_servers"])
def replicas(request: pytest.FixtureRequest) -> Iterator[list[Replica]]:
    """Replicas on one kind of servers. The tests use different addresses and keys, because they share the limits."""
    started = [Replica(REDIS_URL=request.getfixturevalue(request.param).url, **SETTINGS) for _ in range(3)]
    for replica in started:
        replica.start()
    yield started
    for replica in started:
        replica.stop()


async def responses_of(replicas: Sequence[Replica], session_id: str, requests: Sequence[dict[str, str]]) -> Responses:
    """Send requests with these headers concurrently, and count the statuses with the exceeded limits."""

    async def send(http: aiohttp.ClientSession, number: int, headers: dict[str, str]) -> tuple[int, str | None]:
        replica = replicas[number % len(replicas)]
        async with http.get(f"{replica.sessions_url}/{session_id}", headers=headers) as response:
            body = await response.json()
            return response.status, body.get("details", {}).get("limit")

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        return Counter(await asyncio.gather(*(send(http, number, headers) for number, headers in enumerate(requests))))


async def create_session(replica: Replica) -> str:
    """Create a session from another address and return its id."""
    headers = from_address("198.51.100.1") | key_headers("write")
    async with (
        aiohttp.ClientSession() as http,
        http.post(replica.sessions_url, json=NEW_SESSION, headers=headers) as response,
    ):
        session_id: str = (await response.json())["sessionId"]
        return session_id


async def test_exactly_fifty_of_three_hundred_requests_of_an_address_pass(replicas: list[Replica]) -> None:
    session_id = await create_session(replicas[0])

    responses = await responses_of(replicas, session_id, [key_headers("read") | from_address("203.0.113.1")] * 300)

    assert responses == {(200, None): 50, (429, "address"): 250}


async def test_exactly_sixty_of_three_hundred_requests_of_a_caller_pass(replicas: list[Replica]) -> None:
    session_id = await create_session(replicas[0])
    requests = [key_headers("admin") | from_address(f"192.0.2.{number % 100}") for number in range(300)]

    responses = await responses_of(replicas, session_id, requests)

    assert responses == {(200, None): 60, (429, "caller"): 240}


async def test_exactly_twenty_of_three_hundred_unknown_ids_are_reported(replicas: list[Replica]) -> None:
    requests = [key_headers("write") | from_address("203.0.113.3")] * 300

    responses = await responses_of(replicas, UNKNOWN_ID, requests)

    assert responses.pop((404, None)) == 20
    assert {status for status, _ in responses} == {429}


async def test_exactly_twenty_of_three_hundred_unknown_keys_are_reported(replicas: list[Replica]) -> None:
    requests = [from_address("203.0.113.4") | {"X-API-KEY": f"unknown-{number}"} for number in range(300)]

    responses = await responses_of(replicas, UNKNOWN_ID, requests)

    assert responses.pop((401, None)) == 20
    assert {status for status, _ in responses} == {429}


async def test_workers_share_a_limit(redis_server: RedisServer, start_replica: StartReplica) -> None:
    replica = start_replica(
        ["--workers", "2"], REDIS_URL=redis_server.url, SESSION_KEY_PREFIX="w:", SESSION_GUESSES_PER_ADDRESS="20/hour"
    )

    responses = await responses_of([replica], UNKNOWN_ID, [{}] * 100)

    assert responses == {(404, None): 20, (429, "address-guesses"): 80}


async def test_counting_a_request_does_not_wait_for_redis_replicas(
    redis_server: RedisServer, start_replica: StartReplica
) -> None:
    replica = start_replica(
        REDIS_URL=redis_server.url,
        SESSION_KEY_PREFIX="n:",
        SESSION_WAIT_REPLICAS="1",
        SESSION_GUESSES_PER_ADDRESS="2/hour",
    )

    responses = await responses_of([replica], UNKNOWN_ID, [{}] * 5)
    creation = replica.call("POST", SESSIONS, NEW_SESSION)[0]

    assert responses == {(404, None): 2, (429, "address-guesses"): 3}
    assert creation == 503  # changes of sessions wait, and there are no replicas
