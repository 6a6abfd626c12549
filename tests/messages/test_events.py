"""GET /sessions/{id}/events."""

import asyncio

import pytest
from aiohttp.test_utils import TestClient
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.api import event_routes
from service.settings import Settings
from tests.conftest import AGENT, HttpClient, ServiceServer
from tests.messages.chat import Chat, ServerSentEvent, new_chat
from tests.test_walkthrough import SESSIONS


async def test_messages_and_chunks_are_events(chat: Chat) -> None:
    async with chat.listening() as events:
        sent = await chat.sent("Hello")
        message = await events.until("message")
        await chat.chunk(sent["id"], 0, "Hi")
        chunk = await events.until("chunk")
        answer = await chat.answer(sent["id"])
        answered = await events.until("message")

    assert (message.data["id"], message.data["content"]) == (sent["id"], "Hello")
    assert (chunk.data["messageId"], chunk.data["chunk"]) == (answer["id"], "Hi")
    assert (answered.data["id"], answered.data["inReplyTo"]) == (answer["id"], sent["id"])


async def test_changes_of_the_session_are_events(chat: Chat) -> None:
    async with chat.listening() as events:
        await chat.client.post(f"{chat.path}/heartbeat")
        renewed = await events.next()
        await chat.client.patch(f"{chat.path}/metadata", json={"a": 1})
        updated = await events.next()
        await chat.client.delete(chat.path)
        deleted = await events.next()
        rest = await events.rest()

    assert [event.name for event in (renewed, updated, deleted)] == ["renewed", "updated", "deleted"]
    assert (renewed.data["renewalCount"], updated.data["metadata"]) == (1, {"a": 1})
    assert (deleted.data, rest) == ({"sessionId": chat.session_id}, [])


async def test_a_stream_warns_and_ends_when_the_session_expires(redis: Redis, aiohttp_client: AiohttpClient) -> None:
    settings = Settings(
        session_min_timeout_minutes=0.001,
        session_default_timeout_minutes=0.01,
        session_warning_threshold_minutes=0.005,
    )
    chat = await new_chat(await aiohttp_client(ServiceServer(settings, redis)))

    async with chat.listening() as events:
        expiring, expired = await events.rest()

    assert (expiring.name, expiring.data["isNearExpiration"]) == ("expiring", True)
    assert (expired.name, expired.data["reason"]) == ("expired", "inactivity")


async def test_a_stream_resumes_after_the_last_event(chat: Chat) -> None:
    async with chat.listening() as events:
        await chat.sent("a")
        last = await events.until("message")
    await chat.sent("b")
    await chat.sent("c")

    async with chat.listening(headers={"Last-Event-ID": last.id}) as events:
        missed = [await events.until("message") for _ in range(2)]
        await chat.sent("d")
        live = await events.until("message")

    assert [event.data["content"] for event in (*missed, live)] == ["b", "c", "d"]


async def test_a_stream_begins_after_a_time(chat: Chat) -> None:
    for content in ("a", "b"):
        await chat.sent(content)

    async with chat.listening(after="0") as events:
        received = [await events.until("message") for _ in range(2)]

    assert [event.data["content"] for event in received] == ["a", "b"]


async def test_a_new_listener_receives_the_parts_of_an_unfinished_answer(chat: Chat) -> None:
    answered, unanswered = await chat.sent("a"), await chat.sent("b")
    for message in (answered, unanswered):
        await chat.chunk(message["id"], 0, f"for {message['content']}")
    await chat.answer(answered["id"])

    async with chat.listening() as first, chat.listening() as second:
        chunks = [await events.until("chunk") for events in (first, second)]

    assert [chunk.data["chunk"] for chunk in chunks] == ["for b", "for b"]


async def test_the_parts_of_an_answer_to_a_dropped_message_are_not_sent_again(
    redis: Redis, aiohttp_client: AiohttpClient
) -> None:
    chat = await new_chat(await aiohttp_client(ServiceServer(Settings(session_max_messages=2), redis)))
    for content in ("a", "b", "c"):
        sent = await chat.sent(content)
        await chat.chunk(sent["id"], 0, f"for {content}")
        await chat.answer(sent["id"], f"answer to {content}")
    open_message = await chat.sent("d")
    await chat.chunk(open_message["id"], 0, "for d")

    async with chat.listening() as events:
        chunk = await events.until("chunk")

    assert chunk.data["chunk"] == "for d"


async def test_dropped_messages_cause_a_reset(redis: Redis, aiohttp_client: AiohttpClient) -> None:
    client: HttpClient = await aiohttp_client(ServiceServer(Settings(session_max_messages=2), redis))
    chat = await new_chat(client)
    async with chat.listening() as events:
        await chat.sent("a")
        last = await events.until("message")
    for content in ("b", "c", "d"):
        await chat.sent(content)

    async with chat.listening(headers={"Last-Event-ID": last.id}) as events:
        reset = await events.next()
        received = [await events.until("message") for _ in range(2)]

    assert reset == ServerSentEvent("reset", {"after": int(last.id)})
    assert [event.data["content"] for event in received] == ["c", "d"]


async def test_every_listener_receives_every_message_in_order(chat: Chat) -> None:
    async def listen() -> list[str]:
        async with chat.listening() as events:
            ready.release()
            return [(await events.until("message")).data["content"] for _ in range(30)]

    ready = asyncio.Semaphore(0)
    listeners = [asyncio.create_task(listen()) for _ in range(20)]
    for _ in listeners:
        await ready.acquire()
    for number in range(30):
        await chat.sent(str(number))

    assert await asyncio.gather(*listeners) == [[str(number) for number in range(30)]] * 20


async def test_a_lost_subscription_loses_no_message(chat: Chat, redis: Redis) -> None:
    async with chat.listening() as events:
        for number in range(10):
            await redis.client_kill_filter(_type="pubsub")
            await chat.sent(str(number))
        received = [(await events.until("message")).data["content"] for _ in range(10)]

    assert received == [str(number) for number in range(10)]


async def test_two_replicas_deliver_the_same_events(chat: Chat, redis: Redis, aiohttp_client: AiohttpClient) -> None:
    other = Chat(await aiohttp_client(ServiceServer(Settings(), redis)), chat.session_id)

    async with chat.listening() as here, other.listening() as there:
        sent = await chat.sent("Hello")
        await other.chunk(sent["id"], 0, "Hi")
        received = [[await events.until("message"), await events.until("chunk")] for events in (here, there)]

    assert received[0] == received[1]


async def test_a_stopping_replica_asks_to_reconnect(redis: Redis) -> None:
    client: HttpClient = TestClient(ServiceServer(Settings(), redis))
    await client.start_server()
    chat = await new_chat(client)
    async with chat.listening() as events:
        stopping = asyncio.create_task(client.server.close())
        rest = await events.rest()
    await stopping
    await client.close()

    assert [event.name for event in rest] == ["reconnect"]


@pytest.mark.parametrize("cursor", ["x", "-1", "9" * 16])
async def test_an_invalid_cursor_is_rejected(chat: Chat, cursor: str) -> None:
    header = await chat.client.get(f"{chat.path}/events", headers={"Last-Event-ID": cursor})
    parameter = await chat.client.get(f"{chat.path}/events", params={"after": cursor})

    assert (header.status, parameter.status) == (400, 400)


async def test_unknown_sessions_have_no_stream(client: HttpClient) -> None:
    assert (await client.get(f"{SESSIONS}/{AGENT}/events")).status == 404


async def test_a_comment_keeps_an_idle_stream_open(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_routes, "COMMENT_SECONDS", 0.05)

    async with chat.client.get(f"{chat.path}/events") as response:
        async for line in response.content:
            if line == b": keep-alive\n":
                break

    assert line == b": keep-alive\n"


async def test_the_headers_prevent_buffering(chat: Chat) -> None:
    async with chat.client.get(f"{chat.path}/events") as response:
        headers = response.headers

    assert headers["Content-Type"] == "text/event-stream"
    assert (headers["Cache-Control"], headers["X-Accel-Buffering"]) == ("no-cache", "no")
    assert "X-Request-ID" in headers


@pytest.mark.parametrize("settings", [Settings(session_cors_origins="https://chat.example")], ids=["origins"])
async def test_web_pages_of_allowed_origins_may_read_streams(chat: Chat) -> None:
    origin = {"Origin": "https://chat.example"}
    async with chat.client.get(f"{chat.path}/events", headers=origin) as response:
        allowed = response.headers.get("Access-Control-Allow-Origin")
    preflight = await chat.client.options(
        f"{chat.path}/events", headers=origin | {"Access-Control-Request-Method": "GET"}
    )

    assert allowed == "https://chat.example"
    assert "Last-Event-ID" in preflight.headers["Access-Control-Allow-Headers"]
