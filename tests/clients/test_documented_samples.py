"""The calls of the samples in the reference's documentation work, and open no more sessions than necessary."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import requests
from redis.asyncio import Redis

from tests.aging import age
from tests.clients.conftest import Call
from tests.clients.node import needs_node, url_of
from tests.conftest import AGENT, USER, HttpClient
from tests.messages.chat import Chat
from tests.messages.test_answers import answer_next
from tests.test_walkthrough import SESSIONS

OWNER = {"agentId": AGENT, "userId": USER}
SETUP = f"""
const {{ calls, SessionManager, SessionHook, ResilientClient }} =
    await import({str(Path(__file__).parent / "documented_samples.mjs")!r});
const [url, id] = args;
"""


@pytest.fixture
def setup() -> str:
    return SETUP


# Session manager

BEAT = """
    const seen = [];
    await new SessionManager(url, id, () => seen.push("warning"), (status) => seen.push(status)).beat();
    return seen;
"""


@needs_node
async def test_the_session_manager_keeps_an_active_session(call: Call) -> None:
    assert await call(BEAT) == []


@needs_node
async def test_the_session_manager_warns_before_the_end(call: Call, chat: Chat) -> None:
    await chat.client.patch(f"{chat.path}/timeout", json={"timeoutMinutes": 5, "warningThresholdMinutes": 5})

    assert await call(BEAT) == ["warning"]


@needs_node
async def test_the_session_manager_reports_an_expired_session(call: Call, chat: Chat, redis: Redis) -> None:
    await age(redis, chat.session_id, 31 * 60_000)

    assert await call(BEAT) == [410]


# React hook


@needs_node
async def test_the_hook_sends_all_messages_in_one_session(call: Call) -> None:
    calls, messages, status = await call(f"""
        const hook = new SessionHook(url, {OWNER});
        await hook.open();
        for (const content of ["a", "b", "c"]) await hook.send(content);
        return [calls, hook.messages, hook.status];
    """)

    assert calls == ["POST 201"] * 4
    assert [(message["content"], message["authorId"]) for message in messages] == [
        ("a", USER),
        ("b", USER),
        ("c", USER),
    ]
    assert all(message["id"] and message["createdAt"] for message in messages)
    assert (status["renewalCount"], status["wasRenewed"], status["isNearExpiration"]) == (3, True, False)


@needs_node
@pytest.mark.parametrize(("end", "status"), [("deleted", 404), ("expired", 410)])
async def test_the_hook_opens_one_session_after_the_end_of_another(
    call: Call, chat: Chat, redis: Redis, end: str, status: int
) -> None:
    await (chat.client.delete(chat.path) if end == "deleted" else age(redis, chat.session_id, 31 * 60_000))

    calls, contents = await call(f"""
        const hook = new SessionHook(url, {OWNER});
        hook.session = {{ sessionId: id }};
        for (const content of ["a", "b"]) await hook.send(content);
        return [calls, hook.messages.map((message) => message.content)];
    """)

    assert calls == [f"POST {status}", "POST 201", "POST 201", "POST 201"]
    assert contents == ["a", "b"]


# Resilient client


@needs_node
async def test_the_resilient_client_uses_one_session_until_it_ends(call: Call) -> None:
    calls, contents = await call(f"""
        const client = new ResilientClient(url, {OWNER});
        const sent = [await client.send("a"), await client.send("b")];
        await fetch(`${{url}}/api/messaging/sessions/${{client.sessionId}}`, {{ method: "DELETE" }});
        sent.push(await client.send("c"));
        return [calls, sent.map((message) => message.content)];
    """)

    first, second, third = ["POST 201", "POST 201"], ["GET 200", "POST 201"], ["GET 404", "POST 201", "POST 201"]
    assert calls == [*first, *second, *third]
    assert contents == ["a", "b", "c"]


# Python class


class SampleClient:
    """Makes the calls of the documented Python class."""

    def __init__(self, url: str) -> None:
        self._url = url + SESSIONS

    def create(self, **members: Any) -> Any:
        return self._call("POST", "", {**OWNER, **members})

    def send(self, session_id: str, content: str, metadata: object = None) -> Any:
        return self._call("POST", f"/{session_id}/messages", {"content": content, "metadata": metadata})

    def messages(self, session_id: str, **query: int) -> Any:
        response = requests.get(f"{self._url}/{session_id}/messages", params=query, timeout=40)
        response.raise_for_status()
        return response.json()

    def renew(self, session_id: str) -> Any:
        return self._call("POST", f"/{session_id}/renew")

    def heartbeat(self, session_id: str) -> Any:
        return self._call("POST", f"/{session_id}/heartbeat")

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        response = requests.request(method, self._url + path, json=body, timeout=40)
        response.raise_for_status()
        return response.json()


@pytest.fixture
def sample(client: HttpClient) -> SampleClient:
    return SampleClient(url_of(client))


async def test_the_python_class_sends_and_reads_messages(sample: SampleClient, client: HttpClient) -> None:
    session = await asyncio.to_thread(sample.create, timeoutConfig=None, metadata=None)
    session_id = session["sessionId"]

    first = await asyncio.to_thread(sample.send, session_id, "a", {"priority": "high"})
    await answer_next(Chat(client, session_id), content="b")
    page = await asyncio.to_thread(sample.messages, session_id, limit=1)
    older = await asyncio.to_thread(sample.messages, session_id, limit=9, before=page["cursors"]["before"])
    newer = await asyncio.to_thread(sample.messages, session_id, after=older["cursors"]["after"])

    assert (first["content"], first["metadata"]) == ("a", {"priority": "high"})
    assert [[message["content"] for message in part["messages"]] for part in (page, older, newer)] == [
        ["b"],
        ["a"],
        ["b"],
    ]
    assert [part["hasMore"] for part in (page, older, newer)] == [True, False, False]


async def test_the_python_class_renews_a_session(sample: SampleClient) -> None:
    session = await asyncio.to_thread(sample.create)

    renewed = await asyncio.to_thread(sample.renew, session["sessionId"])
    beaten = await asyncio.to_thread(sample.heartbeat, session["sessionId"])

    assert (renewed["renewalCount"], beaten["renewalCount"]) == (1, 2)


async def test_the_python_class_raises_an_error_with_the_time_of_the_end(
    sample: SampleClient, chat: Chat, redis: Redis
) -> None:
    await age(redis, chat.session_id, 31 * 60_000)

    with pytest.raises(requests.HTTPError) as error:
        await asyncio.to_thread(sample.send, chat.session_id, "a")

    response: Any = error.value.response
    assert response.status_code == 410
    assert response.json()["details"]["expiresAt"]
