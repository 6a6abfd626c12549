"""Concurrent calls on the messages of one session."""

import asyncio
from collections import Counter
from collections.abc import Awaitable

import pytest
from redis.asyncio import Redis

from service.errors import SessionExpired, SessionNotFound
from service.messages.dispatcher import Dispatcher
from service.messages.errors import ClientMessageIdReused, MessageAlreadyAnswered
from service.messages.history import MessageHistory, PageRequest
from service.messages.inbox import Inboxes
from service.messages.message import Chunk, NewMessage, answer_id_of
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.sessions.session import Session
from service.sessions.store import SessionStore
from service.settings import Settings
from tests.aging import age
from tests.conftest import AGENT, SECRET, new_session_events
from tests.redis_contents import KEYS

HALF_HOUR_MS = 30 * 60_000


def new_history(client: RedisClient, settings: Settings) -> MessageHistory:
    events = new_session_events(Metrics())
    dispatcher = Dispatcher(client, KEYS, Inboxes(client, KEYS, events, settings), events)
    return MessageHistory(client, client, KEYS, events, dispatcher, Metrics(), SECRET, settings)


@pytest.fixture
def history(redis_client: RedisClient, settings: Settings) -> MessageHistory:
    return new_history(redis_client, settings)


@pytest.fixture
def other_history(second_redis_client: RedisClient, settings: Settings) -> MessageHistory:
    """The history of another replica."""
    return new_history(second_redis_client, settings)


async def settled(*histories: MessageHistory) -> None:
    """Wait for the dispatches of sent messages."""
    for history in histories:
        await history._dispatcher.aclose()


async def contents(history: MessageHistory, session: Session) -> list[str]:
    page = await history.transcript(session.id, PageRequest(100, is_ascending=True))
    return [message.content for message in page.messages]


async def test_one_of_twenty_equal_sends_adds_the_message(
    history: MessageHistory, other_history: MessageHistory, session: Session, redis: Redis
) -> None:
    new = NewMessage("Hello", client_message_id="m-1")

    sent = await asyncio.gather(*(each.send(session.id, new) for each in (history, other_history) for _ in range(10)))

    await settled(history, other_history)
    assert Counter(each.is_replay for each in sent) == {True: 19, False: 1}
    assert len({each.message for each in sent}) == 1
    assert await contents(history, session) == ["Hello"]
    assert await redis.zcard(KEYS.inbox(AGENT).inbox) == 1


async def test_one_of_two_different_sends_with_one_client_message_id_is_rejected(
    history: MessageHistory, other_history: MessageHistory, session: Session
) -> None:
    sends = [
        each.send(session.id, NewMessage(content, client_message_id="m-1"))
        for each, content in ((history, "a"), (other_history, "b"))
    ]

    results = await asyncio.gather(*sends, return_exceptions=True)

    await settled(history, other_history)
    assert [type(result) for result in results].count(ClientMessageIdReused) == 1
    assert len(await contents(history, session)) == 1


async def test_fifty_concurrent_messages_have_different_increasing_times(
    history: MessageHistory, other_history: MessageHistory, session: Session
) -> None:
    sent = await asyncio.gather(
        *((history, other_history)[number % 2].send(session.id, NewMessage(str(number))) for number in range(50))
    )

    await settled(history, other_history)
    in_order = sorted((each.message for each in sent), key=lambda message: message.created_at_ms)
    assert len({message.created_at_ms for message in in_order}) == 50
    assert await contents(history, session) == [message.content for message in in_order]


async def test_a_deletion_leaves_no_message(
    history: MessageHistory, store: SessionStore, session: Session, redis: Redis
) -> None:
    calls: list[Awaitable[object]] = [history.send(session.id, NewMessage(str(number))) for number in range(40)]
    calls.insert(20, store.delete(session.id))

    results = await asyncio.gather(*calls, return_exceptions=True)

    await settled(history)
    keys = KEYS.of(session.id)
    assert {type(result) for result in results if isinstance(result, Exception)} <= {SessionNotFound}
    assert await redis.exists(keys.session, keys.messages, keys.sends, keys.chunks) == 0


async def test_a_message_is_accepted_before_the_expiry_or_not_at_all(
    history: MessageHistory, session: Session, redis: Redis
) -> None:
    async def send(number: int) -> str | None:
        try:
            return (await history.send(session.id, NewMessage(str(number)))).message.content
        except SessionExpired:
            return None

    first = await asyncio.gather(*map(send, range(10)))
    results = await asyncio.gather(age(redis, session.id, HALF_HOUR_MS + 60_000), *map(send, range(10, 30)))

    await settled(history)
    accepted = {content for content in (*first, *results[1:]) if content is not None}
    assert set(await contents(history, session)) == accepted


async def test_two_agents_that_answer_both_appear_and_one_is_first(
    history: MessageHistory, other_history: MessageHistory, session: Session
) -> None:
    question = (await history.send(session.id, NewMessage("Hello"))).message
    answers = [
        each.send(session.id, NewMessage(content, role="agent", in_reply_to=question.id))
        for each, content in ((history, "a"), (other_history, "b"))
    ]

    sent = await asyncio.gather(*answers)

    await settled(history, other_history)
    first = await history.answer_to(session.id, question.id)
    assert first is not None
    assert first == min((each.message for each in sent), key=lambda message: message.created_at_ms)
    assert first.id == answer_id_of(question.id)
    assert len({each.message.id for each in sent}) == 2


async def test_a_cancellation_and_an_answer_leave_nothing_in_the_inbox_after_the_agent_completes_it(
    history: MessageHistory,
    other_history: MessageHistory,
    redis_client: RedisClient,
    settings: Settings,
    session: Session,
) -> None:
    inboxes = Inboxes(redis_client, KEYS, new_session_events(Metrics()), settings)
    question = (await history.send(session.id, NewMessage("Hello"))).message
    await settled(history)
    await inboxes.lease(AGENT, 10)

    await asyncio.gather(
        history.cancel(session.id, question.id),
        other_history.send(session.id, NewMessage("Hi", role="agent", in_reply_to=question.id)),
    )

    await settled(history, other_history)
    leased = await inboxes.lease(AGENT, 10)
    assert leased.deliveries == []  # the answer completes the cancellation too
    assert await contents(history, session) == ["Hello", "Hi"]


async def test_no_part_follows_the_answer(
    history: MessageHistory, other_history: MessageHistory, session: Session
) -> None:
    question = (await history.send(session.id, NewMessage("Hello"))).message

    async def stream() -> int:
        for index in range(50):
            try:
                await other_history.append_chunk(session.id, Chunk(question.id, index, "x"))
            except MessageAlreadyAnswered:
                return index
        return 50

    accepted, _ = await asyncio.gather(
        stream(), history.send(session.id, NewMessage("Hi", role="agent", in_reply_to=question.id))
    )

    await settled(history)
    assert accepted < 50
    assert (await history.open_chunks(session.id))[0] == []
