"""The inbox of an agent."""

import asyncio

import pytest
from aiohttp import ClientResponse
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis

from service.settings import Settings
from tests.aging import age
from tests.conftest import AGENT, HttpClient, ServiceServer
from tests.messages.chat import INBOX, Chat, EventReader, new_chat


async def post(chat: Chat, action: str, *delivery_ids: str) -> ClientResponse:
    return await chat.client.post(f"{INBOX}/{action}", json={"deliveries": list(delivery_ids)})


async def test_a_message_is_delivered_with_its_session(chat: Chat) -> None:
    sent = await chat.sent("Hello")

    [delivery] = await chat.deliveries()

    assert delivery["message"]["content"] == "Hello"
    assert delivery["session"]["sessionId"] == chat.session_id
    assert (delivery["type"], delivery["attempt"], delivery["messageId"]) == ("message", 1, sent["id"])


async def test_a_waiting_consumer_receives_a_message_at_once(chat: Chat) -> None:
    waiting = asyncio.create_task(chat.deliveries(wait=30))
    await chat.sent("Hello")

    [delivery] = await waiting

    assert delivery["message"]["content"] == "Hello"


async def test_messages_of_the_agent_are_not_delivered(chat: Chat) -> None:
    await chat.sent("Welcome", authorId=AGENT)
    await chat.sent("Hello")

    deliveries = await chat.deliveries()

    assert [delivery["message"]["content"] for delivery in deliveries] == ["Hello"]


async def test_a_leased_message_is_not_delivered_to_another_consumer(chat: Chat) -> None:
    await chat.sent()
    await chat.deliveries()

    assert await chat.deliveries(wait=0) == []


async def test_nothing_is_leased_to_a_consumer_that_has_disconnected(chat: Chat) -> None:
    waiting = asyncio.create_task(chat.deliveries(wait=30))
    await asyncio.wait([waiting], timeout=0.3)
    waiting.cancel()
    await asyncio.wait([waiting])

    await chat.sent("Hello")

    [delivery] = await chat.deliveries()
    assert delivery["attempt"] == 1


async def test_each_message_is_leased_to_one_of_ten_consumers(chat: Chat) -> None:
    sent = await asyncio.gather(*(chat.sent(str(number)) for number in range(30)))

    received: list[str] = []
    while len(received) < len(sent):
        pages = await asyncio.gather(*(chat.deliveries(wait=1, max=2) for _ in range(10)))
        received += [delivery["messageId"] for page in pages for delivery in page]

    assert sorted(received) == sorted(message["id"] for message in sent)


async def test_an_answer_completes_the_delivery(short_leases: Chat) -> None:
    sent = await short_leases.sent()
    await short_leases.deliveries()

    await short_leases.answer(sent["id"])

    assert await short_leases.deliveries(wait=0.2) == []


async def test_an_unanswered_message_is_delivered_again_after_its_lease(short_leases: Chat) -> None:
    sent = await short_leases.sent()
    await short_leases.deliveries()

    [delivery] = await short_leases.deliveries()

    assert (delivery["messageId"], delivery["attempt"]) == (sent["id"], 2)


async def test_a_completed_delivery_does_not_return(short_leases: Chat) -> None:
    await short_leases.sent()
    [delivery] = await short_leases.deliveries()

    completed = await post(short_leases, "ack", delivery["id"])
    again = await post(short_leases, "ack", delivery["id"])

    assert [(await response.json())["completed"] for response in (completed, again)] == [1, 0]
    assert await short_leases.deliveries(wait=0.2) == []


async def test_an_extended_lease_ends_later(chat: Chat, redis: Redis) -> None:
    await chat.sent()
    [delivery] = await chat.deliveries()
    key = f"sessions:agent:{{{AGENT}}}:inbox"
    await redis.zadd(key, {delivery["id"]: 1})  # the lease has ended

    response = await post(chat, "extend", delivery["id"])

    assert (await response.json())["extended"] == 1
    assert await chat.deliveries(wait=0) == []


async def test_a_message_of_an_ended_session_is_delivered_without_the_session(chat: Chat, redis: Redis) -> None:
    await chat.sent("Hello")
    await age(redis, chat.session_id, 31 * 60_000)

    [delivery] = await chat.deliveries()

    assert (delivery["message"]["content"], delivery["session"]) == ("Hello", None)


async def test_messages_of_deleted_sessions_leave_the_inbox(chat: Chat, redis: Redis) -> None:
    await chat.sent("Hello")
    await chat.client.delete(chat.path)

    assert await chat.deliveries(wait=0.2) == []
    assert await redis.zcard(f"sessions:agent:{{{AGENT}}}:inbox") == 0


async def test_a_stream_delivers_messages_as_events(chat: Chat) -> None:
    await chat.sent("a")
    async with chat.client.get(INBOX, headers={"Accept": "text/event-stream"}) as response:
        events = EventReader(response)
        first = await events.next()
        await chat.sent("b")
        second = await events.next()

    assert [event.name for event in (first, second)] == ["delivery", "delivery"]
    assert [event.data["message"]["content"] for event in (first, second)] == ["a", "b"]


async def test_a_stream_has_at_most_max_uncompleted_deliveries(chat: Chat) -> None:
    for content in ("a", "b"):
        await chat.sent(content)
    async with chat.client.get(INBOX, params={"max": 1}, headers={"Accept": "text/event-stream"}) as response:
        events = EventReader(response)
        first = await events.next()
        waiting = asyncio.create_task(events.next())
        await asyncio.wait([waiting], timeout=0.2)
        assert not waiting.done()
        await chat.answer(first.data["messageId"])

        second = await waiting

    assert second.data["message"]["content"] == "b"


async def test_a_stream_delivers_again_after_a_lease(short_leases: Chat) -> None:
    await short_leases.sent()
    async with short_leases.client.get(INBOX, params={"max": 1}, headers={"Accept": "text/event-stream"}) as response:
        events = EventReader(response)
        attempts = [(await events.next()).data["attempt"] for _ in range(2)]

    assert attempts == [1, 2]


@pytest.mark.parametrize(
    ("name", "value"), [("max", "0"), ("max", "101"), ("max", "x"), ("wait", "61"), ("wait", "-1"), ("wait", "soon")]
)
async def test_an_invalid_parameter_is_rejected(client: HttpClient, name: str, value: str) -> None:
    response = await client.get(INBOX, params={name: value})

    assert (response.status, list((await response.json())["details"]["fields"])) == (400, [name])


@pytest.mark.parametrize("deliveries", [[], "x", [7], ["a\nb"], ["x"] * 101, [""]])
async def test_invalid_delivery_ids_are_rejected(client: HttpClient, deliveries: object) -> None:
    response = await client.post(f"{INBOX}/ack", json={"deliveries": deliveries})

    assert (response.status, list((await response.json())["details"]["fields"])) == (400, ["deliveries"])


async def test_an_agent_that_is_no_uuid_is_rejected(client: HttpClient) -> None:
    assert (await client.get("/api/messaging/agents/me/inbox")).status == 400


# Cancellation


async def test_a_message_that_no_agent_received_leaves_the_inbox(chat: Chat) -> None:
    sent = await chat.sent()

    response = await chat.cancel(sent["id"])

    assert response.status == 202
    assert await chat.deliveries(wait=0.3) == []


async def test_an_agent_that_received_the_message_receives_the_cancellation(chat: Chat) -> None:
    sent = await chat.sent()
    await chat.deliveries()

    await chat.cancel(sent["id"])

    [delivery] = await chat.deliveries()
    assert (delivery["type"], delivery["messageId"]) == ("cancel", sent["id"])


async def test_the_next_chunk_states_that_the_message_is_cancelled(chat: Chat) -> None:
    sent = await chat.sent()
    before = await chat.chunk(sent["id"], 0, "a")
    await chat.cancel(sent["id"])

    after = await chat.chunk(sent["id"], 1, "b")

    assert [(await response.json())["cancelled"] for response in (before, after)] == [False, True]


async def test_an_answered_message_cannot_be_cancelled(chat: Chat) -> None:
    sent = await chat.sent()
    await chat.deliveries()
    await chat.answer(sent["id"])

    assert (await chat.cancel(sent["id"])).status == 202
    assert await chat.deliveries(wait=0.2) == []


async def test_an_unknown_message_cannot_be_cancelled(chat: Chat) -> None:
    statuses = [(await chat.cancel(unknown)).status for unknown in ("x", "018d0c5e-3a40-7b1c-9d2e-4f5a6b7c8d9e")]

    assert statuses == [404, 404]


@pytest.fixture
async def short_leases(redis: Redis, aiohttp_client: AiohttpClient) -> Chat:
    settings = Settings(session_inbox_lease_seconds=0.1)
    return await new_chat(await aiohttp_client(ServiceServer(settings, redis)))


# Invalid and extreme input


@pytest.mark.parametrize("value", ["000100999", "0" * 40, "1" * 5000])
async def test_a_long_number_does_not_exceed_the_bound(client: HttpClient, value: str) -> None:
    assert (await client.get(INBOX, params={"max": value})).status in (400, 414)


async def test_deeply_nested_metadata_blocks_no_other_message(chat: Chat) -> None:
    nested: dict[str, object] = {}
    for _ in range(252):
        nested = {"a": nested}
    sent = await chat.sent("deep", metadata=nested, attachments=[{"type": "file", "url": "https://files.example/a"}])
    await chat.sent("flat")

    deliveries = await chat.deliveries(max=10)
    deliveries += await chat.deliveries(wait=1) if len(deliveries) < 2 else []

    assert {delivery["message"]["content"] for delivery in deliveries} == {"deep", "flat"}
    assert sent["id"] in {delivery["messageId"] for delivery in deliveries}
