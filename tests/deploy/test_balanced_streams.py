"""Event streams and long requests through HAProxy with deploy/haproxy.cfg; skipped without HAProxy."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout

from service.api.inbox_routes import MAX_WAIT_SECONDS
from service.api.server.event_stream import COMMENT_SECONDS
from service.settings import Settings
from tests.balancer import DEPLOY, Balancer
from tests.conftest import AGENT, USER, StartReplica
from tests.messages.chat import INBOX, EventReader
from tests.redis_server import RedisServer, wait_until
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

pytestmark = pytest.mark.skipif(
    shutil.which("haproxy") is None, reason="needs HAProxy: apt-get install haproxy, or brew install haproxy"
)

SHORT_TIMEOUTS = {"timeout client 30s": "timeout client 300ms", "timeout server 15s": "timeout server 300ms"}
"""The other requests time out before the long ones of these tests end."""

StartBalancer = Callable[..., str]


@pytest.fixture
def start_balancer(tmp_path: Path) -> Iterator[StartBalancer]:
    """Starts a balancer in front of replicas, and returns its URL."""
    started: list[Balancer] = []

    def start(*replicas: Replica) -> str:
        addresses = [replica.url.removeprefix("http://") for replica in replicas]
        started.append(Balancer(tmp_path, addresses, SHORT_TIMEOUTS))
        started[0].start()
        started[0].get_until(f"{SESSIONS}/health", None)
        return started[0].url

    yield start
    for balancer in started:
        balancer.stop()


@pytest.fixture
async def open_http() -> AsyncIterator[Callable[[str], ClientSession]]:
    """Opens HTTP clients."""
    opened: list[ClientSession] = []

    def open_(url: str) -> ClientSession:
        opened.append(ClientSession(url, timeout=ClientTimeout(total=50)))
        return opened[-1]

    yield open_
    for session in opened:
        await session.close()


@pytest.fixture
def replicas(redis_server: RedisServer, start_replica: StartReplica) -> list[Replica]:
    redis_server.command("FLUSHALL")
    return [start_replica(REDIS_URL=redis_server.url) for _ in range(2)]


OpenHttp = Callable[[str], ClientSession]


async def call(http: ClientSession, method: str, path: str, body: object = None) -> Any:
    async with http.request(method, path, json=body) as response:
        assert response.ok, await response.text()
        return await response.json()


async def new_session(http: ClientSession) -> str:
    session = await call(http, "POST", SESSIONS, {"agentId": AGENT, "userId": USER})
    return f"{SESSIONS}/{session['sessionId']}"


async def test_each_event_arrives_before_the_next_is_sent(
    start_balancer: StartBalancer, open_http: OpenHttp, replicas: list[Replica]
) -> None:
    await exchange_messages(open_http(start_balancer(*replicas)))


async def test_each_event_arrives_from_every_worker(
    start_balancer: StartBalancer, open_http: OpenHttp, redis_server: RedisServer, start_replica: StartReplica
) -> None:
    redis_server.command("FLUSHALL")
    replica = start_replica(["--workers", "2"], REDIS_URL=redis_server.url)

    await exchange_messages(open_http(start_balancer(replica)))


async def exchange_messages(http: ClientSession) -> None:
    """Send messages over several connections while one client listens."""
    session = await new_session(http)
    async with http.get(f"{session}/events") as response:
        events = EventReader(response)
        await events.until("session")
        for number in range(8):
            sent = await call(http, "POST", f"{session}/messages", {"content": str(number)})
            received = await events.until("message")
            assert received.data["id"] == sent["id"]


async def test_a_streamed_answer_arrives_part_by_part(
    start_balancer: StartBalancer, open_http: OpenHttp, replicas: list[Replica]
) -> None:
    http = open_http(start_balancer(*replicas))
    session = await new_session(http)

    async with http.post(f"{session}/messages", json={"content": "Hello", "transport": "sse"}) as response:
        events = EventReader(response)
        message_id = (await events.next()).data["id"]
        for index in range(3):
            path = f"{session}/messages/{message_id}/chunks"
            await call(http, "POST", path, {"index": index, "chunk": "a"})
            assert (await events.until("chunk")).data["index"] == index
        answer = {"content": "aaa", "authorId": AGENT, "inReplyTo": message_id}
        await call(http, "POST", f"{session}/messages", answer)
        done = await events.until("done")

    assert done.data["text"] == "aaa"


async def test_long_requests_outlive_the_timeouts_of_others(
    start_balancer: StartBalancer, open_http: OpenHttp, redis_server: RedisServer, start_replica: StartReplica
) -> None:
    redis_server.command("FLUSHALL")
    http = open_http(start_balancer(start_replica(REDIS_URL=redis_server.url, SESSION_MESSAGE_WAIT_SECONDS="1")))
    session = await new_session(http)

    poll = await call(http, "GET", f"{INBOX}?wait=1")
    sent = await call(http, "POST", f"{session}/messages", {"content": "Hello", "transport": "http"})
    async with http.post(f"{session}/messages", json={"content": "Hello", "transport": "sse"}) as response:
        *_, done = await EventReader(response).rest()

    assert (poll, sent["pending"], done.name, done.data["pending"]) == ({"deliveries": []}, True, "done", True)


async def test_an_agent_that_leaves_receives_no_message(
    start_balancer: StartBalancer, open_http: OpenHttp, redis_server: RedisServer, start_replica: StartReplica
) -> None:
    redis_server.command("FLUSHALL")
    replica = start_replica(REDIS_URL=redis_server.url)
    http = open_http(start_balancer(replica))
    session = await new_session(http)
    polling = asyncio.create_task(call(http, "GET", f"{INBOX}?wait={MAX_WAIT_SECONDS}"))
    await asyncio.to_thread(wait_until, lambda: has_subscriber(redis_server), "a subscription to the inbox")

    polling.cancel()
    await asyncio.to_thread(replica.wait_for_line, INBOX.replace(AGENT, "{agent_id}"))
    await call(http, "POST", f"{session}/messages", {"content": "Hello"})

    [delivery] = (await call(http, "GET", f"{INBOX}?wait=20"))["deliveries"]
    assert (delivery["message"]["content"], delivery["attempt"]) == ("Hello", 1)


def has_subscriber(redis_server: RedisServer) -> bool:
    return AGENT in str(redis_server.command("PUBSUB", "SHARDCHANNELS"))


def test_the_timeout_of_streams_is_longer_than_their_silence() -> None:
    configuration = (DEPLOY / "haproxy.cfg").read_text()
    [seconds] = re.findall(r"^ *timeout server (\d+)s", configuration.partition("\nbackend streams\n")[2], re.MULTILINE)

    assert int(seconds) > max(2 * COMMENT_SECONDS, MAX_WAIT_SECONDS, Settings().session_message_wait_seconds)
