"""Feeds and their listeners: order, gaps and bounds."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from service.errors import StoreUnavailable
from service.live.events import HistoryGap, LiveEvent, SessionEnded
from service.live.hub import MAX_QUEUED_EVENTS, Hub, Listener, ListenerDropped
from service.messages.dispatcher import Dispatcher
from service.messages.history import MAX_CHUNKS, MessageHistory
from service.messages.inbox import Inboxes
from service.messages.message import Chunk, Message, NewMessage
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.redis_client.subscriber import ChannelListener, Subscriber
from service.sessions.session import Session
from service.sessions.store import SessionStore
from service.settings import Settings
from tests.aging import age
from tests.conftest import SECRET, new_session_events, service_connection_factory
from tests.redis_contents import KEYS
from tests.subscribers import new_subscriber

MESSAGE_ID = "018d0c5e-3a40-7b1c-9d2e-4f5a6b7c8d9e"
MINUTE_MS = 60_000


class Announcing(Subscriber):
    """Announces a change as soon as a channel is subscribed to."""

    announcements: tuple[str, ...] = ()

    async def subscribe(self, channel: str, listener: ChannelListener) -> None:
        await super().subscribe(channel, listener)
        for announcement in self.announcements:
            listener.on_message(announcement)
        await asyncio.sleep(0)


@pytest.fixture
def settings() -> Settings:
    return Settings(session_max_messages=150)


@pytest.fixture
def history(redis_client: RedisClient, settings: Settings) -> MessageHistory:
    events = new_session_events(Metrics())
    dispatcher = Dispatcher(redis_client, KEYS, Inboxes(redis_client, KEYS, events, settings), events)
    return MessageHistory(redis_client, redis_client, KEYS, events, dispatcher, Metrics(), SECRET, settings)


@pytest.fixture
async def subscriber(redis: Redis) -> AsyncIterator[Announcing]:
    part = new_subscriber(service_connection_factory(redis), 10)
    subscriber = Announcing(part._locate, part._connect_to, 10)
    yield subscriber
    await subscriber.aclose()


@pytest.fixture
def hub(subscriber: Subscriber, store: SessionStore, history: MessageHistory) -> Hub:
    return Hub(subscriber, KEYS, store, history, Metrics())


async def send(history: MessageHistory, session: Session, *contents: str) -> list[str]:
    return [(await history.send(session.id, NewMessage(content))).message.id for content in contents]


async def next_of(listener: Listener) -> LiveEvent:
    event = await listener.next(10)
    assert event is not None
    return event


async def next_message(listener: Listener) -> Message:
    while not isinstance(event := await next_of(listener), Message):
        continue
    return event


async def events_until(listener: Listener, content: str) -> list[LiveEvent]:
    events: list[LiveEvent] = []
    while not events or not (isinstance(events[-1], Message) and events[-1].content == content):
        events.append(await next_of(listener))
    return events


async def events_until_the_end(listener: Listener) -> list[LiveEvent]:
    events: list[LiveEvent] = []
    while not events or not isinstance(events[-1], SessionEnded):
        events.append(await next_of(listener))
    return events


async def test_changes_during_the_start_of_a_feed_repeat_no_message(
    hub: Hub, subscriber: Announcing, history: MessageHistory, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    await send(history, session, "a", "b")
    subscriber.announcements = (f"message {session.id}", f"session {session.id}")

    listener = await hub.join(session.id)
    await send(history, session, "c")

    assert (await next_message(listener)).content == "c"
    assert caplog.messages == []
    hub.leave(session.id, listener)


async def test_messages_that_were_dropped_before_they_were_read_are_a_gap(
    hub: Hub, history: MessageHistory, session: Session, redis: Redis
) -> None:
    await send(history, session, "a")
    listener = await hub.join(session.id)
    keys = KEYS.of(session.id)
    first = await history.last_created_at(session.id)
    await send(history, session, "b", "c")
    async with asyncio.timeout(10):
        assert [(await next_message(listener)).content for _ in range(2)] == ["b", "c"]
    await redis.xtrim(keys.messages, 0, approximate=False)
    await send(history, session, "d")

    events = await events_until(listener, "d")

    [gap] = [event for event in events if isinstance(event, HistoryGap)]
    assert gap.after_ms > first
    hub.leave(session.id, listener)


async def test_the_end_of_a_session_comes_after_all_messages(
    hub: Hub, subscriber: Announcing, history: MessageHistory, session: Session, redis: Redis
) -> None:
    listener = await hub.join(session.id)
    feed = hub._feeds[session.id]
    await subscriber.aclose()  # from now on, the feed learns nothing
    await send(history, session, *map(str, range(130)))
    await age(redis, session.id, 60 * 24 * MINUTE_MS)

    feed.changed("session")
    feed.changed("message")
    events = await events_until_the_end(listener)

    assert [event.content for event in events if isinstance(event, Message)] == list(map(str, range(130)))
    hub.leave(session.id, listener)


async def test_a_listener_receives_more_parts_of_an_answer_than_its_queue_holds(
    hub: Hub, history: MessageHistory, session: Session
) -> None:
    [message_id] = await send(history, session, "a")
    number = MAX_QUEUED_EVENTS + 10
    for index in range(number):
        await history.append_chunk(session.id, Chunk(message_id, index, "x"))

    listener = await hub.join(session.id)
    hub._feeds[session.id].publish(Chunk(message_id, number, "last"))
    received = [await next_of(listener) for _ in range(number + 1)]

    assert [event.position for event in received if isinstance(event, Chunk)] == list(range(number + 1))
    hub.leave(session.id, listener)


async def test_a_feed_keeps_a_bounded_number_of_parts(
    hub: Hub, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = await hub.join(session.id)
    feed = hub._feeds[session.id]

    async def read_new(*_: object) -> tuple[list[Message], list[tuple[str, Chunk]], bool]:
        return [], [(str(index), Chunk(MESSAGE_ID, index, "x")) for index in range(3 * MAX_CHUNKS)], False

    monkeypatch.setattr(hub.history, "read_new", read_new)
    await feed._read_messages()

    assert len(feed.open_chunks) == MAX_CHUNKS
    hub.leave(session.id, listener)


async def test_a_slow_listener_is_dropped_and_holds_nothing(hub: Hub, session: Session) -> None:
    slow, fast = await hub.join(session.id), await hub.join(session.id)
    feed = hub._feeds[session.id]

    for index in range(MAX_QUEUED_EVENTS + 1):
        feed.publish(Chunk(MESSAGE_ID, index, "x"))
        await next_of(fast)

    with pytest.raises(ListenerDropped):
        await slow.next(0)
    assert (len(slow._events), feed.listeners) == (0, {fast})
    hub.leave(session.id, fast)


async def test_a_failed_start_leaves_no_feed(hub: Hub, subscriber: Subscriber, session: Session) -> None:
    await subscriber.aclose()

    with pytest.raises(StoreUnavailable):
        await hub.join(session.id)

    assert (hub._feeds, hub._channels) == ({}, {})
