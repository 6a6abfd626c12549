"""Limits over three replicas, asked by many at once: exact to the one, on each kind of servers."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence

import aiohttp
import pytest

from tests.auth.conftest import ENTRIES, having
from tests.conftest import AGENT, USER, StartReplica
from tests.rate_limit.conftest import UNKNOWN, coming_from
from tests.redis_server import RedisServer
from tests.replica import Replica

NEW = {"agentId": AGENT, "userId": USER}
SETTINGS = {
    "TRUSTED_PROXIES": "127.0.0.1",
    "SESSION_API_KEYS": ENTRIES,
    "SESSION_RATE_PER_ADDRESS": "50/hour",
    "SESSION_RATE_PER_CALLER": "60/hour",
    "SESSION_GUESSES_PER_ADDRESS": "20/hour",
    "SESSION_GUESSES_PER_CALLER": "off",
}
Answers = Counter[tuple[int, str | None]]


@pytest.fixture(scope="module", params=["redis_server", "sentinel_servers", "cluster_servers"])
def replicas(request: pytest.FixtureRequest) -> Iterator[list[Replica]]:
    """Three over one kind of servers; each test comes from addresses of its own, with a key of its own."""
    started = [Replica(REDIS_URL=request.getfixturevalue(request.param).url, **SETTINGS) for _ in range(3)]
    for replica in started:
        replica.start()
    yield started
    for replica in started:
        replica.stop()


async def opened_at(replica: Replica) -> str:
    """The id of a session that was opened from somewhere else."""
    headers = coming_from("198.51.100.1") | having("write")
    async with aiohttp.ClientSession() as http, http.post(replica.sessions_url, json=NEW, headers=headers) as answer:
        session_id: str = (await answer.json())["sessionId"]
        return session_id


async def asked_at_once(replicas: Sequence[Replica], session_id: str, requests: Sequence[dict[str, str]]) -> Answers:
    """How often each status came, with the limit that refused, of requests with these headers, to replicas in turn."""

    async def ask(http: aiohttp.ClientSession, turn: int, headers: dict[str, str]) -> tuple[int, str | None]:
        async with http.get(f"{replicas[turn % len(replicas)].sessions_url}/{session_id}", headers=headers) as answer:
            body = await answer.json()
            return answer.status, body.get("details", {}).get("limit")

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        return Counter(await asyncio.gather(*(ask(http, turn, headers) for turn, headers in enumerate(requests))))


async def test_of_three_hundred_from_one_address_exactly_fifty_are_let_through(replicas: list[Replica]) -> None:
    session_id = await opened_at(replicas[0])

    answers = await asked_at_once(replicas, session_id, [having("read") | coming_from("203.0.113.1")] * 300)

    assert answers == {(200, None): 50, (429, "address"): 250}


async def test_of_three_hundred_of_one_caller_exactly_sixty_are_let_through(replicas: list[Replica]) -> None:
    session_id = await opened_at(replicas[0])
    from_everywhere = [having("admin") | coming_from(f"192.0.2.{number % 100}") for number in range(300)]

    answers = await asked_at_once(replicas, session_id, from_everywhere)

    assert answers == {(200, None): 60, (429, "caller"): 240}


async def test_of_three_hundred_guesses_exactly_twenty_are_told(replicas: list[Replica]) -> None:
    requests = [having("write") | coming_from("203.0.113.3")] * 300

    answers = await asked_at_once(replicas, UNKNOWN, requests)

    assert answers[404, None] == 20
    assert answers.total() - answers[404, None] == sum(found for (status, _), found in answers.items() if status == 429)


async def test_of_three_hundred_wrong_keys_exactly_twenty_are_told(replicas: list[Replica]) -> None:
    wrong = [coming_from("203.0.113.4") | {"X-API-KEY": f"wrong-{number}"} for number in range(300)]

    answers = await asked_at_once(replicas, UNKNOWN, wrong)

    assert answers[401, None] == 20
    assert answers.total() - answers[401, None] == sum(found for (status, _), found in answers.items() if status == 429)


async def test_workers_share_a_limit(redis_server: RedisServer, start_replica: StartReplica) -> None:
    replica = start_replica(
        ["--workers", "2"], REDIS_URL=redis_server.url, SESSION_KEY_PREFIX="w:", SESSION_GUESSES_PER_ADDRESS="20/hour"
    )

    answers = await asked_at_once([replica], UNKNOWN, [{}] * 100)

    assert answers == {(404, None): 20, (429, "address-guesses"): 80}


async def test_no_count_waits_for_replicas(redis_server: RedisServer, start_replica: StartReplica) -> None:
    """A change would, and is 503 here, where there are no replicas."""
    replica = start_replica(
        REDIS_URL=redis_server.url,
        SESSION_KEY_PREFIX="n:",
        SESSION_WAIT_REPLICAS="1",
        SESSION_GUESSES_PER_ADDRESS="2/hour",
    )

    answers = await asked_at_once([replica], UNKNOWN, [{}] * 5)

    assert answers == {(404, None): 2, (429, "address-guesses"): 3}
    assert replica.call("POST", "/api/messaging/sessions", NEW)[0] == 503
