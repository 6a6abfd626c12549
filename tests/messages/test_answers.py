"""Answers of agents: complete, in parts, and through the transports http and sse."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.settings import Settings
from tests.conftest import AGENT, HttpClient, ServiceServer
from tests.messages.chat import Chat, EventReader, new_chat

Answer = Callable[[Chat, str], Awaitable[object]]


async def answer_next(chat: Chat, *chunks: str, content: str = "Hi there") -> None:
    """Receive the next message, and answer it in parts."""
    [delivery] = await chat.deliveries(wait=30)
    for index, chunk in enumerate(chunks):
        await chat.chunk(delivery["messageId"], index, chunk)
    await chat.answer(delivery["messageId"], content, thought="hm", actions=["REPLY"])


@pytest.fixture
async def impatient(redis: Redis, aiohttp_client: AiohttpClient) -> Chat:
    """A chat with a service that waits only briefly for answers."""
    settings = Settings(session_message_wait_seconds=0.1)
    return await new_chat(await aiohttp_client(ServiceServer(settings, redis)))


async def test_http_returns_the_answer(chat: Chat) -> None:
    agent = asyncio.create_task(answer_next(chat))

    sent = await chat.sent(transport="http")

    await agent
    assert sent["agentResponse"].items() >= {"text": "Hi there", "thought": "hm", "actions": ["REPLY"]}.items()
    assert sent["data"]["agentResponse"] == sent["agentResponse"]
    assert "pending" not in sent


async def test_http_without_an_answer_is_pending(impatient: Chat) -> None:
    sent = await impatient.sent(transport="http")

    assert (sent["pending"], "agentResponse" in sent) == (True, False)
    assert await impatient.contents() == ["Hello"]


async def test_a_repeated_http_request_returns_the_earlier_answer(chat: Chat) -> None:
    agent = asyncio.create_task(answer_next(chat))
    await chat.sent(transport="http", clientMessageId="1")
    await agent

    repeated = await chat.sent(transport="http", clientMessageId="1")

    assert repeated["agentResponse"]["text"] == "Hi there"


async def test_a_cancelled_http_request_returns_without_an_answer(chat: Chat) -> None:
    waiting = asyncio.create_task(chat.sent(transport="http"))
    [delivery] = await chat.deliveries(wait=30)

    await chat.cancel(delivery["messageId"])

    assert not {"agentResponse", "pending"} & (await waiting).keys()


@pytest.mark.parametrize("member", ["transport", "mode"])
async def test_sse_streams_the_answer_in_parts(chat: Chat, member: str) -> None:
    agent = asyncio.create_task(answer_next(chat, "Hi ", "there"))
    value = "sse" if member == "transport" else "stream"

    async with chat.client.post(f"{chat.path}/messages", json={"content": "Hello", member: value}) as response:
        events = await EventReader(response).rest()

    await agent
    user_message, first, second, done = events
    assert (response.status, response.headers["Content-Type"]) == (200, "text/event-stream")
    assert (user_message.name, user_message.data["content"]) == ("user_message", "Hello")
    assert [(chunk.data["index"], chunk.data["chunk"]) for chunk in (first, second)] == [(0, "Hi "), (1, "there")]
    assert (done.name, done.data["type"], done.data["text"]) == ("done", "complete", "Hi there")
    assert {chunk.data["messageId"] for chunk in (first, second)} == {done.data["responseMessageId"]}


async def test_a_stream_without_an_answer_ends(impatient: Chat) -> None:
    async with impatient.client.post(
        f"{impatient.path}/messages", json={"content": "Hello", "transport": "sse"}
    ) as response:
        *_, done = await EventReader(response).rest()

    assert (done.name, done.data) == ("done", {"type": "complete", "text": None, "pending": True})


async def test_a_stream_ends_with_the_session(chat: Chat) -> None:
    async with chat.client.post(f"{chat.path}/messages", json={"content": "a", "transport": "sse"}) as response:
        events = EventReader(response)
        await events.next()
        await chat.client.delete(chat.path)
        [error] = await events.rest()

    assert (error.name, error.data["code"]) == ("error", "SESSION_ENDED")


async def test_a_cancelled_stream_ends(chat: Chat) -> None:
    async with chat.client.post(f"{chat.path}/messages", json={"content": "a", "transport": "sse"}) as response:
        events = EventReader(response)
        message = await events.next()
        await chat.cancel(message.data["id"])
        [done] = await events.rest()

    assert (done.name, done.data["cancelled"]) == ("done", True)


async def test_a_disconnect_does_not_stop_the_answer(chat: Chat) -> None:
    async with chat.client.post(f"{chat.path}/messages", json={"content": "a", "transport": "sse"}) as response:
        await EventReader(response).next()

    await answer_next(chat, content="still here")

    assert await chat.contents() == ["still here", "a"]


async def test_invalid_messages_are_rejected_before_a_stream_starts(chat: Chat) -> None:
    response = await chat.send("", transport="sse")

    assert (response.status, response.content_type) == (400, "application/json")


# Chunks


async def test_a_repeated_chunk_is_ignored(chat: Chat) -> None:
    sent = await chat.sent()
    async with chat.listening() as events:
        responses = [await chat.chunk(sent["id"], index, "a") for index in (0, 0, 1)]
        received = [await events.until("chunk") for _ in range(2)]

    assert [response.status for response in responses] == [202, 202, 202]
    assert [event.data["index"] for event in received] == [0, 1]


async def test_a_chunk_ahead_of_the_next_one_is_rejected(chat: Chat) -> None:
    sent = await chat.sent()

    response = await chat.chunk(sent["id"], 1, "a")

    error = await response.json()
    assert (response.status, error["code"], error["details"]) == (409, "CHUNK_OUT_OF_ORDER", {"nextIndex": 0})


async def test_a_chunk_after_the_answer_is_rejected(chat: Chat) -> None:
    sent = await chat.sent()
    await chat.answer(sent["id"])

    response = await chat.chunk(sent["id"], 0, "late")

    assert (response.status, (await response.json())["code"]) == (409, "MESSAGE_ALREADY_ANSWERED")


@pytest.mark.parametrize("message_id", ["x", "018d0c5e-3a40-7b1c-9d2e-4f5a6b7c8d9e"])
async def test_a_chunk_for_an_unknown_message_is_rejected(chat: Chat, message_id: str) -> None:
    assert (await chat.chunk(message_id, 0, "a")).status == 404


@pytest.mark.parametrize(
    "body", [{"index": -1, "chunk": "a"}, {"index": True, "chunk": "a"}, {"chunk": "a"}, {"index": 0, "chunk": ""}]
)
async def test_an_invalid_chunk_is_rejected(chat: Chat, body: dict[str, Any]) -> None:
    sent = await chat.sent()

    response = await chat.client.post(f"{chat.path}/messages/{sent['id']}/chunks", json=body)

    assert response.status == 400


# The form of the reference implementation


async def test_a_submitted_message_is_an_answer(chat: Chat, client: HttpClient) -> None:
    sent = await chat.sent()
    await chat.deliveries()
    body = {
        "channel_id": chat.session_id,
        "message_server_id": "00000000-0000-0000-0000-000000000000",
        "author_id": AGENT,
        "content": "Hi",
        "in_reply_to_message_id": sent["id"],
        "source_type": "agent_response",
        "raw_message": {"text": "Hi", "thought": "hm", "actions": ["REPLY"]},
        "metadata": {"agent_id": AGENT},
    }

    response = await client.post("/api/messaging/submit", json=body)

    submitted = await response.json()
    [answer, _] = (await chat.page())["messages"]
    assert (response.status, submitted["success"], submitted["data"]["id"]) == (201, True, answer["id"])
    assert answer["metadata"] == {"agent_id": AGENT, "thought": "hm", "actions": ["REPLY"]}
    assert answer["inReplyTo"] == sent["id"]


async def test_a_repeated_request_finds_an_answer_behind_many_messages(impatient: Chat) -> None:
    sent = await impatient.sent(clientMessageId="1")
    for number in range(105):
        await impatient.sent(str(number))
    await impatient.answer(sent["id"], "late")

    repeated = await impatient.sent(transport="http", clientMessageId="1")

    assert repeated["agentResponse"]["text"] == "late"


async def test_a_repeated_request_of_a_cancelled_message_ends_at_once(chat: Chat) -> None:
    sent = await chat.sent(clientMessageId="1")
    await chat.cancel(sent["id"])

    repeated = await chat.sent(transport="http", clientMessageId="1")

    assert not {"agentResponse", "pending"} & repeated.keys()


async def test_a_repeated_stream_is_marked_as_one(chat: Chat) -> None:
    sent = await chat.sent("Hello", clientMessageId="1")
    await chat.answer(sent["id"])

    response = await chat.send("Hello", clientMessageId="1", transport="sse")

    assert response.headers["Idempotency-Replayed"] == "true"
    assert [event.name for event in await EventReader(response).rest()] == ["user_message", "done"]


async def test_the_agent_does_not_wait_for_itself(chat: Chat) -> None:
    sent = await chat.sent("Welcome", authorId=AGENT, transport="http")

    assert sent["pending"] is True
