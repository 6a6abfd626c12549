"""A message and its answer on one server, with Sentinel and on a cluster."""

import pytest

from service.live.hub import Hub, Listener
from service.messages.dispatcher import Dispatcher
from service.messages.history import MessageHistory, PageRequest
from service.messages.inbox import Inboxes
from service.messages.message import Chunk, Message, NewMessage
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.redis_client.factory import ClientFactory
from service.sessions.keys import Keys
from service.sessions.store import SessionStore
from service.settings import Settings
from service.settings.redis_url import Kind
from tests.conftest import AGENT, SECRET, create_session, new_session_events

KEYS = Keys("")
SESSIONS = 8
"""So many that in a cluster they are on several nodes."""


@pytest.fixture(params=["server", "sentinel", "cluster"])
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


async def next_of(listener: Listener, kind: type[Chunk] | type[Message]) -> Chunk | Message:
    while not isinstance(event := await listener.next(20), kind):
        assert event is not None
    return event


async def test_messages_and_answers_reach_everybody(
    redis_client: RedisClient, redis_client_factory: ClientFactory, store: SessionStore, settings: Settings
) -> None:
    events = new_session_events(Metrics())
    inboxes = Inboxes(redis_client, KEYS, events, settings)
    dispatcher = Dispatcher(redis_client, KEYS, inboxes, events)
    history = MessageHistory(redis_client, redis_client, KEYS, events, dispatcher, Metrics(), SECRET, settings)
    hub = Hub(redis_client_factory.subscriber, KEYS, store, history, Metrics())
    session_ids = [(await create_session(store)).id for _ in range(SESSIONS)]
    listeners = {session_id: await hub.join(session_id) for session_id in session_ids}

    for session_id in session_ids:
        await history.send(session_id, NewMessage(f"to {session_id}"))
    await dispatcher.aclose()
    deliveries = (await inboxes.lease(AGENT, 100)).deliveries
    for session_id, message_id in [(delivery.session_id, delivery.message_id) for delivery in deliveries]:
        await history.append_chunk(session_id, Chunk(message_id, 0, "part"))
        await history.send(session_id, NewMessage("answer", role="agent", in_reply_to=message_id))
    await dispatcher.aclose()

    assert sorted(delivery.session_id for delivery in deliveries) == sorted(session_ids)
    for session_id, listener in listeners.items():
        received = [await next_of(listener, Message), await next_of(listener, Chunk), await next_of(listener, Message)]
        page = await history.page(session_id, PageRequest(10, is_ascending=True))
        assert [received[0], received[2]] == page.messages
        hub.leave(session_id, listener)
    assert (await inboxes.lease(AGENT, 100)).next_in_seconds is None
    await redis_client_factory.subscriber.aclose()
