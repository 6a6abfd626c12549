"""Accepted messages are in the history exactly once and in order, and every listener receives all of them."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import aiohttp
import pytest

from tests.conftest import AGENT, USER
from tests.faults.conftest import SHORT_STORE_TIMEOUT, started
from tests.faults.scales import LONG, SHORT
from tests.messages.chat import EventReader
from tests.redis_server import RedisServer, free_port
from tests.replica import Replica
from tests.test_walkthrough import SESSIONS

_PAUSE_SECONDS = 0.02
_LAST = "last"


class Sizes:
    """The number of sessions, of listeners on each of them, and of repetitions of each fault."""

    def __init__(self, sessions: int, listeners: int, repetitions: int) -> None:
        self.sessions = sessions
        self.listeners = listeners
        self.repetitions = repetitions


_LONG = pytest.param(Sizes(100, 10, LONG.repetitions), id="long", marks=[pytest.mark.long, pytest.mark.timeout(600)])
SIZES = pytest.mark.parametrize("sizes", [pytest.param(Sizes(4, 3, SHORT.repetitions), id="short"), _LONG])


class Conversation:
    """Sends numbered messages, each until it is accepted, and compares listeners with the history."""

    def __init__(self, http: aiohttp.ClientSession, urls: Sequence[str]) -> None:
        self._http = http
        self._urls = urls
        self._path = ""
        self._is_ending = False
        self._progress = asyncio.Event()
        self.accepted: list[str] = []

    async def open(self) -> None:
        body = {"agentId": AGENT, "userId": USER, "timeoutConfig": {"timeoutMinutes": 30}}
        async with self._http.post(f"{self._urls[0]}{SESSIONS}", json=body) as response:
            assert response.status == 201, await response.text()
            self._path = f"{SESSIONS}/{(await response.json())['sessionId']}"

    async def send(self) -> None:
        while not self._is_ending:
            await self._send_until_accepted(str(len(self.accepted)))
            await asyncio.sleep(_PAUSE_SECONDS)
        await self._send_until_accepted(_LAST)

    async def wait_for_more(self, number: int) -> None:
        """Wait until this number of further messages is accepted."""
        target = len(self.accepted) + number
        while len(self.accepted) < target:
            self._progress.clear()
            await self._progress.wait()

    def end(self) -> None:
        self._is_ending = True

    async def listen(self) -> list[str]:
        """Return the contents that a listener receives, which resumes after each failure."""
        received: list[str] = []
        last_id = "0"
        while received[-1:] != [_LAST]:
            try:
                async with self._http.get(self._url("/events"), headers={"Last-Event-ID": last_id}) as response:
                    events = EventReader(response)
                    while response.status == 200 and received[-1:] != [_LAST]:
                        event = await events.until("message")
                        received.append(event.data["content"])
                        last_id = event.id
            except (aiohttp.ClientError, OSError, EOFError, TimeoutError):
                pass
            await asyncio.sleep(_PAUSE_SECONDS)
        return received

    async def history(self) -> list[str]:
        contents: list[str] = []
        after = "0"
        while True:
            query = {"order": "asc", "limit": "100", "after": after}
            async with self._http.get(self._url("/messages"), params=query) as response:
                page: Any = await response.json()
            contents += [message["content"] for message in page["messages"]]
            if not page["hasMore"]:
                return contents
            after = page["messages"][-1]["createdAt"]

    async def _send_until_accepted(self, content: str) -> None:
        body = {"content": content, "clientMessageId": content}
        while True:
            try:
                async with self._http.post(self._url("/messages"), json=body) as response:
                    if response.status == 201:
                        self.accepted.append(content)
                        self._progress.set()
                        return
                    assert response.status in (503, 507), await response.text()
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass
            await asyncio.sleep(_PAUSE_SECONDS)

    def _url(self, suffix: str) -> str:
        return f"{random.choice(self._urls)}{self._path}{suffix}"


@pytest.fixture(scope="module")
def replicas(servers: tuple[RedisServer, object]) -> Iterator[list[Replica]]:
    """Three replicas. One that is killed is replaced in the list, on the same port."""
    settings = {
        "REDIS_URL": servers[0].url,
        **SHORT_STORE_TIMEOUT,
        "SESSION_MAX_MESSAGES": "100000",
        "SESSION_MIN_TIMEOUT_MINUTES": "1",
    }
    with started(*(Replica(PORT=str(free_port()), **settings) for _ in range(3))) as running:
        yield running


async def kill_a_replica(redis: RedisServer, replicas: list[Replica]) -> None:
    oldest = replicas.pop(0)
    oldest.signal(signal.SIGKILL)
    oldest.wait()
    successor = Replica(**oldest.settings)
    replicas.append(successor)
    await asyncio.to_thread(successor.start)


async def kill_subscriptions(redis: RedisServer, replicas: list[Replica]) -> None:
    redis.command("CLIENT", "KILL", "TYPE", "pubsub")


async def restart_redis(redis: RedisServer, replicas: list[Replica]) -> None:
    redis.kill()
    await asyncio.sleep(SHORT.seconds)
    await asyncio.to_thread(redis.start)


async def pause_redis(redis: RedisServer, replicas: list[Replica]) -> None:
    redis.pause()
    await asyncio.sleep(SHORT.pause_seconds)
    redis.resume()


async def fill_redis(redis: RedisServer, replicas: list[Replica]) -> None:
    redis.command("CONFIG", "SET", "maxmemory", 1)
    await asyncio.sleep(SHORT.seconds)
    redis.command("CONFIG", "SET", "maxmemory", 0)


FAULTS: list[Callable[[RedisServer, list[Replica]], Awaitable[None]]] = [
    kill_a_replica,
    kill_subscriptions,
    restart_redis,
    pause_redis,
    fill_redis,
]


async def wait_for_progress(conversations: Sequence[Conversation]) -> None:
    async with asyncio.timeout(60):
        await asyncio.gather(*(conversation.wait_for_more(5) for conversation in conversations))


@SIZES
async def test_accepted_messages_reach_the_history_and_every_listener_once_and_in_order(
    own_redis: RedisServer, replicas: list[Replica], sizes: Sizes
) -> None:
    urls = [replica.url for replica in replicas]
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=20)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http:
        conversations = [Conversation(http, urls) for _ in range(sizes.sessions)]
        for conversation in conversations:
            await conversation.open()
        senders = [asyncio.create_task(conversation.send()) for conversation in conversations]
        listeners = [
            [asyncio.create_task(conversation.listen()) for _ in range(sizes.listeners)]
            for conversation in conversations
        ]
        for fault in FAULTS * sizes.repetitions:
            await wait_for_progress(conversations)
            await fault(own_redis, replicas)
        await wait_for_progress(conversations)
        for conversation in conversations:
            conversation.end()
        async with asyncio.timeout(60):
            await asyncio.gather(*senders)
            received = [await asyncio.gather(*of_session) for of_session in listeners]
        histories = [await conversation.history() for conversation in conversations]

    assert histories == [conversation.accepted for conversation in conversations]
    assert received == [[history] * sizes.listeners for history in histories]
