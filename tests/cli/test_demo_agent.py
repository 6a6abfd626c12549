"""`python -m service demo-agent` echoes messages in parts."""

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from aiohttp import ClientSession
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.auth.api_keys import new_key
from service.cli import arguments, demo_agent
from service.cli.demo_agent import MAX_CHUNKS, DemoAgent
from service.errors import StartupError
from service.settings import Settings
from tests.aging import age
from tests.conftest import AGENT, USER, HttpClient, ServiceServer, StartReplica
from tests.docs.markdown import ROOT
from tests.messages.chat import Chat, EventReader, new_chat
from tests.redis_server import RedisServer, free_port
from tests.replica import COMMAND
from tests.test_walkthrough import SESSIONS

TIMEOUT_SECONDS = 50


@pytest.fixture
async def http() -> AsyncIterator[ClientSession]:
    async with ClientSession() as session:
        yield session


@pytest.fixture
async def chat(client: HttpClient) -> Chat:
    return await new_chat(client)


@pytest.fixture
def agent(chat: Chat, http: ClientSession) -> DemoAgent:
    return DemoAgent(http, str(chat.client.make_url("")).rstrip("/"), AGENT)


async def handle_next(agent: DemoAgent) -> None:
    [delivery] = await agent.receive()
    await agent.handle(delivery)


async def test_a_message_is_echoed_word_by_word(chat: Chat, agent: DemoAgent) -> None:
    async with chat.listening() as events:
        sent = await chat.sent("How do  you do?")
        await handle_next(agent)
        chunks = [await events.until("chunk") for _ in range(4)]
        answer = await events.until("message")

    assert [chunk.data["chunk"] for chunk in chunks] == ["How ", "do  ", "you ", "do?"]
    assert (answer.data["content"], answer.data["inReplyTo"]) == ("How do  you do?", sent["id"])


async def test_a_repeated_delivery_adds_no_second_answer(chat: Chat, agent: DemoAgent) -> None:
    await chat.sent()
    [delivery] = await agent.receive()

    await agent.handle(delivery)
    await agent.handle(delivery)

    assert await chat.contents() == ["Hello", "Hello"]


async def test_a_cancelled_message_is_not_answered(chat: Chat, agent: DemoAgent, redis: Redis) -> None:
    sent = await chat.sent()
    [delivery] = await agent.receive()
    await chat.cancel(sent["id"])

    await agent.handle(delivery)
    await handle_next(agent)  # the cancellation

    assert await chat.contents() == ["Hello"]
    assert await redis.zcard(f"sessions:agent:{{{AGENT}}}:inbox") == 0


async def test_a_message_of_an_ended_session_is_completed(chat: Chat, agent: DemoAgent, redis: Redis) -> None:
    await chat.sent()
    await age(redis, chat.session_id, 31 * 60_000)

    await handle_next(agent)

    assert await redis.zcard(f"sessions:agent:{{{AGENT}}}:inbox") == 0


@pytest.mark.parametrize(("has_key", "status"), [(False, 401), (True, 403)])
async def test_an_agent_without_the_scope_agent_is_rejected(
    redis: Redis, aiohttp_client: AiohttpClient, has_key: bool, status: int
) -> None:
    key, entry = new_key("bot", ("read",))
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(session_api_keys=entry), redis))
    command = arguments.RunDemoAgent(str(client.make_url("")), key if has_key else None, AGENT)

    with pytest.raises(StartupError, match=f"The service rejected the agent with {status}: "):
        await demo_agent._run(command)


@pytest.mark.parametrize("content", ["Hello", "  ", " a\n b ", "🙂 " * 1000], ids=["word", "blanks", "lines", "long"])
def test_the_parts_of_an_answer_are_its_text(content: str) -> None:
    chunks = demo_agent.chunks_of(content)

    assert "".join(chunks) == content
    assert all(chunks)
    assert len(chunks) <= MAX_CHUNKS


def test_its_arguments_have_defaults() -> None:
    assert arguments.parse(["demo-agent"]) == arguments.RunDemoAgent("http://127.0.0.1:3000", None, AGENT)
    assert arguments.parse(["demo-agent", "--agent", USER.upper(), "--key", "k", "--url", "https://chat.example/"]) == (
        arguments.RunDemoAgent("https://chat.example/", "k", USER)
    )


# As a process

Start = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts agents. They receive SIGINT even if this process ignores it."""
    started: list[subprocess.Popen[str]] = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def start(url: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, "demo-agent", "--url", url],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"]},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    signal.signal(signal.SIGINT, before)
    for process in started:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], pattern: str) -> None:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(pattern, line):
            return
    raise AssertionError("".join(lines))


async def test_an_agent_waits_for_the_service_and_stops_with_sigterm(
    redis_server: RedisServer, start_replica: StartReplica, start: Start
) -> None:
    redis_server.command("FLUSHALL")
    port = free_port()
    process = start(f"http://127.0.0.1:{port}")
    await asyncio.to_thread(read_until, process, "The service is unavailable")

    replica = await asyncio.to_thread(start_replica, REDIS_URL=redis_server.url, PORT=str(port))
    async with ClientSession(replica.url) as http:
        async with http.post(SESSIONS, json={"agentId": AGENT, "userId": USER}) as response:
            session = await response.json()
        message = {"content": "Hello you", "transport": "sse"}
        async with http.post(f"{SESSIONS}/{session['sessionId']}/messages", json=message) as response:
            events = await EventReader(response).rest()
    process.send_signal(signal.SIGTERM)

    assert [event.name for event in events] == ["user_message", "chunk", "chunk", "done"]
    assert events[-1].data["text"] == "Hello you"
    assert await asyncio.to_thread(process.wait, TIMEOUT_SECONDS) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_an_agent_without_a_service(start: Start, number: signal.Signals) -> None:
    process = start(f"http://127.0.0.1:{free_port()}")
    read_until(process, "answers messages at")

    process.send_signal(number)

    assert process.wait(TIMEOUT_SECONDS) == 0
