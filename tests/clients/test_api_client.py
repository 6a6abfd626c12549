"""`@elizaos/api-client` 1.7.2 receives the results that its types declare."""

import asyncio
from datetime import datetime
from typing import Any

import pytest

from tests.clients.conftest import Call
from tests.clients.node import API_CLIENT, needs_api_client
from tests.conftest import AGENT, USER
from tests.messages.chat import Chat
from tests.messages.test_answers import answer_next

pytestmark = needs_api_client

OWNER = {"agentId": AGENT, "userId": USER}
SETUP = f"""
const {{ SessionsService }} = await import({str(API_CLIENT)!r});
const [url, id] = args;
const sessions = new SessionsService({{ baseUrl: url }});
"""


@pytest.fixture
def setup() -> str:
    return SETUP


def types_of(document: dict[str, Any]) -> dict[str, type]:
    """Return the type of each member, where a timestamp is a datetime."""
    return {name: datetime if _is_timestamp(value) else type(value) for name, value in document.items()}


def _is_timestamp(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value) is not None
    except ValueError:
        return False


USER_MESSAGE = {"id": str, "content": str, "authorId": str, "createdAt": datetime, "metadata": dict}
SESSION_STATUS = {"expiresAt": datetime, "renewalCount": int, "wasRenewed": bool, "isNearExpiration": bool}
SESSION = {"sessionId": str, "agentId": str, "userId": str, "createdAt": datetime, "metadata": dict}


async def test_create_session(call: Call) -> None:
    created = await call(f"return sessions.createSession({{ ...{OWNER}, metadata: {{ platform: 'web' }} }});")

    assert types_of(created).items() >= SESSION.items()
    assert created["metadata"] == {"platform": "web"}


async def test_get_session(call: Call, chat: Chat) -> None:
    session = await call("return sessions.getSession(id);")

    assert types_of(session).items() >= {**SESSION, "lastActivity": datetime, "channelId": str}.items()
    assert session["sessionId"] == session["channelId"] == chat.session_id


async def test_send_message(call: Call) -> None:
    sent = await call("return sessions.sendMessage(id, { content: 'Hello', metadata: { priority: 'low' } });")

    assert sent["success"] is True
    assert types_of(sent["userMessage"]).items() >= USER_MESSAGE.items()
    assert types_of(sent["sessionStatus"]) == SESSION_STATUS
    assert (sent["userMessage"]["content"], sent["userMessage"]["metadata"]) == ("Hello", {"priority": "low"})
    assert "agentResponse" not in sent


async def test_send_message_sync(call: Call, chat: Chat) -> None:
    agent = asyncio.create_task(answer_next(chat, "Hi ", "there"))

    sent = await call("return sessions.sendMessageSync(id, { content: 'Hello' });")

    await agent
    assert sent["userMessage"]["content"] == "Hello"
    answer = sent["agentResponse"]
    assert (answer["text"], answer["thought"], answer["actions"]) == ("Hi there", "hm", ["REPLY"])


async def test_send_message_with_attachments(call: Call, chat: Chat) -> None:
    attachment = {"type": "image", "url": "https://files.example/1.png", "name": "1.png", "size": 9}

    await call(f"return sessions.sendMessage(id, {{ content: 'Hello', attachments: [{attachment}] }});")

    [delivery] = await chat.deliveries()
    assert delivery["message"]["attachments"] == [attachment]


async def test_send_message_as_a_stream_ends(call: Call, chat: Chat) -> None:
    agent = asyncio.create_task(answer_next(chat))

    sent = await call("return sessions.sendMessage(id, { content: 'Hello', transport: 'sse' });")

    await agent
    assert sent == {"success": True}  # this client drops the events of a stream


async def test_get_messages(call: Call, chat: Chat) -> None:
    await answer_all(chat, "a", "b")

    page = await call("return sessions.getMessages(id, { limit: 3 });")

    declared = {**USER_MESSAGE, "isAgent": bool}
    assert [types_of(message).items() >= declared.items() for message in page["messages"]] == [True] * 3
    assert [message["content"] for message in page["messages"]] == ["Hi there", "b", "Hi there"]
    assert (page["messages"][0]["metadata"], page["hasMore"]) == ({"thought": "hm", "actions": ["REPLY"]}, True)


@pytest.mark.parametrize("form", ["message.createdAt", "new Date(message.createdAt)", "Date.parse(message.createdAt)"])
async def test_get_messages_before_and_after_a_time(call: Call, chat: Chat, form: str) -> None:
    await answer_all(chat, "a", "b")

    before, after = await call(f"""
        const message = (await sessions.getMessages(id)).messages[1];
        const pages = [{{ before: {form} }}, {{ after: {form} }}].map((query) => sessions.getMessages(id, query));
        return (await Promise.all(pages)).map((page) => page.messages.map((message) => message.content));
    """)

    assert (before, after) == (["Hi there", "a"], ["Hi there"])


async def test_delete_session(call: Call, chat: Chat) -> None:
    assert (await call("return sessions.deleteSession(id);"))["success"] is True
    assert (await chat.client.get(chat.path)).status == 404


async def test_an_error_has_its_code_and_status(call: Call, chat: Chat) -> None:
    await chat.client.delete(chat.path)

    error = await call("return sessions.sendMessage(id, { content: 'a' }).catch((e) => ({ ...e, text: e.message }));")

    assert (error["name"], error["code"], error["status"]) == ("ApiError", "SESSION_NOT_FOUND", 404)
    assert error["text"]


async def answer_all(chat: Chat, *contents: str) -> None:
    for content in contents:
        await chat.send(content)
        await answer_next(chat)
