"""POST /sessions/{id}/messages."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.settings import Settings
from tests.conftest import AGENT, USER, HttpClient, ServiceServer
from tests.messages.chat import Chat, new_chat
from tests.test_walkthrough import SESSIONS

OTHER = "11111111-2222-4333-8444-555555555555"
ATTACHMENT = {"type": "image", "url": "https://files.example/cat.png", "size": 7, "alt": "a cat"}


async def test_a_message_is_returned_as_it_is_stored(chat: Chat) -> None:
    sent = await chat.sent("Hello", metadata={"a": 1}, attachments=[ATTACHMENT], clientMessageId="m-1")

    [stored] = (await chat.page())["messages"]
    assert stored.items() <= sent.items()
    assert stored == {
        "id": sent["id"],
        "sessionId": chat.session_id,
        "content": "Hello",
        "authorId": USER,
        "isAgent": False,
        "createdAt": sent["createdAt"],
        "attachments": [ATTACHMENT],
        "metadata": {"a": 1, "attachments": [ATTACHMENT]},
        "clientMessageId": "m-1",
    }


async def test_the_response_serves_each_kind_of_client(chat: Chat) -> None:
    sent = await chat.sent("Hello")

    message = sent["userMessage"]
    assert sent["data"] == {"success": True, "userMessage": message, "sessionStatus": sent["sessionStatus"]}
    assert (message["id"], message["channel_id"], message["author_id"]) == (sent["id"], chat.session_id, USER)
    assert message["raw_message"] == {"content": "Hello"}
    assert sent["sessionStatus"].keys() == {"expiresAt", "renewalCount", "wasRenewed", "isNearExpiration"}


async def test_a_message_of_the_user_renews_the_session(chat: Chat, client: HttpClient) -> None:
    status = (await chat.sent())["sessionStatus"]

    session = await (await client.get(chat.path)).json()
    assert (status["renewalCount"], status["wasRenewed"]) == (1, True)
    assert (session["renewalCount"], session["expiresAt"]) == (1, status["expiresAt"])


async def test_a_message_without_auto_renew_is_only_an_activity(client: HttpClient) -> None:
    chat = await new_chat(client, timeoutConfig={"autoRenew": False})

    sent = await chat.sent()

    session = await (await client.get(chat.path)).json()
    assert sent["sessionStatus"]["wasRenewed"] is False
    assert (session["renewalCount"], session["lastActivity"]) == (0, sent["createdAt"])


async def test_a_message_of_the_agent_is_no_activity(chat: Chat, client: HttpClient) -> None:
    before = await (await client.get(chat.path)).json()

    sent = await chat.sent("Welcome", authorId=AGENT)

    session = await (await client.get(chat.path)).json()
    assert (sent["isAgent"], sent["authorId"]) == (True, AGENT)
    assert (session["lastActivity"], session["expiresAt"]) == (before["lastActivity"], before["expiresAt"])


async def test_concurrent_messages_have_unique_increasing_times(chat: Chat) -> None:
    sent = await asyncio.gather(*(chat.sent(str(number)) for number in range(50)))

    stored = (await chat.page(limit=100, order="asc"))["messages"]
    times = [message["createdAt"] for message in stored]
    assert times == sorted(set(times))
    assert {message["id"] for message in stored} == {message["id"] for message in sent}


@pytest.mark.parametrize("header", [{}, {"Idempotency-Key": "k-1"}])
async def test_only_the_first_of_twenty_equal_sends_adds_a_message(chat: Chat, header: dict[str, str]) -> None:
    body = {"content": "Hello"} | ({} if header else {"clientMessageId": "k-1"})
    path = f"{chat.path}/messages"

    responses = await asyncio.gather(*(chat.client.post(path, json=body, headers=header) for _ in range(20)))

    bodies = [await response.json() for response in responses]
    assert Counter(response.status for response in responses) == {201: 20}
    assert Counter("Idempotency-Replayed" in response.headers for response in responses) == {False: 1, True: 19}
    assert len({(body["id"], body["createdAt"]) for body in bodies}) == 1
    assert await chat.contents() == ["Hello"]


async def test_an_id_of_another_message_is_rejected(chat: Chat) -> None:
    await chat.sent("Hello", clientMessageId="k-1")

    response = await chat.send("Bye", clientMessageId="k-1")

    assert (response.status, (await response.json())["code"]) == (422, "CLIENT_MESSAGE_ID_REUSED")
    assert await chat.contents() == ["Hello"]


async def test_the_agent_and_the_user_may_use_the_same_id(chat: Chat) -> None:
    sent = await chat.sent("Hello", clientMessageId="1")

    await chat.answer(sent["id"], "Hi", clientMessageId="1")

    assert await chat.contents() == ["Hi", "Hello"]


async def test_the_id_of_a_dropped_message_is_forgotten(redis: Redis, aiohttp_client: AiohttpClient) -> None:

    client: HttpClient = await aiohttp_client(ServiceServer(Settings(session_max_messages=2), redis))
    chat = await new_chat(client)
    for content in ("a", "b", "c"):
        await chat.sent(content, clientMessageId=content)

    assert await chat.contents() == ["c", "b"]
    assert "Idempotency-Replayed" not in (await chat.send("a", clientMessageId="a")).headers
    [sends] = [key async for key in redis.scan_iter("*:sends")]
    fields = {str(field).partition(":")[2].rstrip("'") for field in await redis.hkeys(sends)}
    assert fields - {""} == {"c", "a"}


LONGEST = "x" * 4000
INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "no content": ({}, "content"),
    "empty content": ({"content": ""}, "content"),
    "content that is no string": ({"content": 7}, "content"),
    "4,001 units": ({"content": LONGEST + "x"}, "content"),
    "an emoji across the limit": ({"content": LONGEST[:-1] + "😀"}, "content"),
    "an unknown transport": ({"content": "a", "transport": "pigeon"}, "transport"),
    "a transport that is no string": ({"content": "a", "transport": {"a": 1}}, "transport"),
    "an unknown mode": ({"content": "a", "mode": ["sync"]}, "mode"),
    "attachments that are no list": ({"content": "a", "attachments": {}}, "attachments"),
    "an attachment without a url": ({"content": "a", "attachments": [{"type": "image"}]}, "attachments"),
    "an attachment that is no object": ({"content": "a", "attachments": ["x"]}, "attachments"),
    "an attachment with a negative size": ({"content": "a", "attachments": [ATTACHMENT | {"size": -1}]}, "attachments"),
    "too many attachments": ({"content": "a", "attachments": [ATTACHMENT] * 21}, "attachments"),
    "large attachments": ({"content": "a", "attachments": [ATTACHMENT | {"name": "x" * 11_000}]}, "attachments"),
    "large metadata": ({"content": "a", "metadata": {"a": "x" * 11_000}}, "metadata"),
    "metadata that is no object": ({"content": "a", "metadata": [1]}, "metadata"),
    "a client id with a space": ({"content": "a", "clientMessageId": "a b"}, "clientMessageId"),
    "an author that is no UUID": ({"content": "a", "authorId": "me"}, "authorId"),
    "a foreign author": ({"content": "a", "authorId": OTHER}, "authorId"),
    "an answer of the user": ({"content": "a", "inReplyTo": "018d0c5e-3a40-7b1c-9d2e-4f5a6b7c8d9e"}, "inReplyTo"),
    "an answer to no message": ({"content": "a", "authorId": AGENT, "inReplyTo": OTHER}, "inReplyTo"),
    "thoughts of the user": ({"content": "a", "thought": "hm"}, "thought"),
    "actions that are no list": ({"content": "a", "authorId": AGENT, "actions": "REPLY"}, "actions"),
}


@pytest.mark.parametrize(("body", "field"), INVALID.values(), ids=INVALID)
async def test_an_invalid_message_is_rejected(chat: Chat, body: dict[str, Any], field: str) -> None:
    response = await chat.client.post(f"{chat.path}/messages", json=body)

    error = await response.json()
    assert (response.status, error["code"], list(error["details"]["fields"])) == (400, "VALIDATION_ERROR", [field])
    assert await chat.contents() == []


@pytest.mark.parametrize("content", [LONGEST, "😀" * 2000, " ", "\x00", "\u2028\r\n"])
async def test_unusual_content_is_stored_as_it_is(chat: Chat, content: str) -> None:
    await chat.sent(content)

    assert await chat.contents() == [content]


@pytest.mark.parametrize("members", [{"metadata": None, "attachments": None, "transport": None, "mode": None}])
async def test_null_means_absent(chat: Chat, members: dict[str, None]) -> None:
    sent = await chat.sent("Hello", **members)

    assert sent["metadata"] == {}


async def test_an_answer_to_a_message_of_another_session_is_rejected(chat: Chat, client: HttpClient) -> None:
    other = await new_chat(client)
    message = await other.sent("Hello")

    response = await chat.send("Hi", authorId=AGENT, inReplyTo=message["id"])

    assert (response.status, (await response.json())["code"]) == (404, "MESSAGE_NOT_FOUND")


async def test_unknown_and_deleted_sessions_return_404(chat: Chat, client: HttpClient) -> None:
    await chat.sent()
    await client.delete(chat.path)

    unknown = await client.post(f"{SESSIONS}/{OTHER}/messages", json={"content": "a"})

    assert ((await chat.send()).status, unknown.status) == (404, 404)


async def test_messages_can_be_disabled(redis: Redis, aiohttp_client: AiohttpClient) -> None:

    chat = await new_chat(await aiohttp_client(ServiceServer(Settings(session_max_messages=0), redis)))
    statuses = [(await chat.send()).status, (await chat.client.get(f"{chat.path}/messages")).status]
    await chat.client.delete(chat.path)

    assert statuses == [501, 501]
    assert (await chat.send()).status == 404


async def test_deleting_a_session_deletes_its_messages(chat: Chat, redis: Redis) -> None:
    message = await chat.sent(clientMessageId="1")
    await chat.chunk(message["id"], 0, "Hi")

    await chat.client.delete(chat.path)

    assert [key async for key in redis.scan_iter(f"session:*{chat.session_id}*")] == []


async def test_the_state_of_dropped_messages_does_not_accumulate(redis: Redis, aiohttp_client: AiohttpClient) -> None:
    chat = await new_chat(await aiohttp_client(ServiceServer(Settings(session_max_messages=1), redis)))
    for _ in range(5):
        sent = await chat.sent()
        await chat.answer(sent["id"])

    [sends] = [key async for key in redis.scan_iter("*:sends")]
    assert set(await redis.hkeys(sends)) == {b"agentId", b"userId"}


@pytest.mark.parametrize("members", [{"thought": "hm"}, {"actions": ["REPLY"]}])
async def test_only_the_agent_has_thoughts_and_actions(chat: Chat, members: dict[str, Any]) -> None:
    response = await chat.send("Hello", authorId=USER, **members)

    assert (response.status, list((await response.json())["details"]["fields"])) == (400, list(members))
