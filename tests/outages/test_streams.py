"""Event streams that are open while Redis fails."""

from tests.conftest import HttpClient
from tests.messages.chat import INBOX, EventReader, new_chat
from tests.outages.incidents import killed
from tests.redis_server import RedisServer


async def test_the_stream_of_an_inbox_ends_with_an_event(service: HttpClient, own_redis: RedisServer) -> None:
    chat = await new_chat(service)
    async with service.get(INBOX, headers={"Accept": "text/event-stream"}) as response:
        events = EventReader(response)
        await chat.sent("Hello")
        await events.next()
        with killed(own_redis):
            rest = await events.rest()

    assert [event.name for event in rest] == ["reconnect"]


async def test_the_stream_of_a_session_continues(service: HttpClient, own_redis: RedisServer) -> None:
    chat = await new_chat(service)
    async with chat.listening() as events:
        await chat.sent("a")
        with killed(own_redis):
            pass
        await chat.sent("b")
        received = [(await events.until("message")).data["content"] for _ in range(2)]

    assert received == ["a", "b"]
