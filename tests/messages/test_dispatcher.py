"""A message reaches its agent, whichever step of a dispatch or of a consumer fails."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from service.errors import StoreUnavailable
from service.messages.dispatcher import Dispatcher
from service.messages.history import MessageHistory
from service.messages.inbox import Delivery, Inboxes
from service.messages.message import NewMessage
from service.observability.event_log import EventLog
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient
from service.sessions.events import SessionEvents
from service.sessions.keys import Keys, SessionKeys
from service.sessions.session import Session
from service.sessions.store import SessionStore
from service.settings import Settings
from tests.conftest import AGENT, SECRET, create_session
from tests.interruption import Interrupted
from tests.log_events import logged_events

KEYS = Keys("")
INBOX, ATTEMPTS = KEYS.inbox(AGENT)
SESSION_ID = "4716d2ea-673d-47d0-b1bd-33202db7411b"
MESSAGE_ID = "018d0c5e-3a40-7b1c-9d2e-4f5a6b7c8d9e"
UNREADABLE = "a record in Redis is unreadable and is skipped"
MINUTE_MS = 60_000

MALFORMED = [
    b"",
    b"x",
    b"a b c d e",
    b"\xff\xfe",
    b"two\nlines",
    f"{SESSION_ID} x".encode(),
    b"x " + MESSAGE_ID.encode(),
]


class Process:
    """The history, the inboxes and the dispatcher of one replica."""

    def __init__(self, client: RedisClient, settings: Settings) -> None:
        events = SessionEvents(Metrics(), EventLog(SECRET))
        self.inboxes = Inboxes(client, KEYS, events, settings)
        self.dispatcher = Dispatcher(client, KEYS, self.inboxes, events)
        self.history = MessageHistory(client, client, KEYS, events, self.dispatcher, Metrics(), SECRET, settings)

    async def send(self, session: Session) -> str:
        """Send a message, wait until its dispatch ends, and return its id."""
        sent = await self.history.send(session.id, NewMessage("Hello"))
        await self.dispatcher.aclose()
        return sent.message.id

    async def answer(self, session: Session, message_id: str) -> str:
        sent = await self.history.send(session.id, NewMessage("Hi", role="agent", in_reply_to=message_id))
        await self.dispatcher.aclose()
        return sent.message.id

    async def lease(self) -> list[Delivery]:
        return (await self.inboxes.lease(AGENT, 10)).deliveries

    async def leased_ids(self) -> list[str]:
        return [delivery.message_id for delivery in await self.lease()]


@pytest.fixture
def process(redis_client: RedisClient, settings: Settings) -> Process:
    return Process(redis_client, settings)


async def fail() -> None:
    raise StoreUnavailable("the replica stopped")


def failing(client: RedisClient, settings: Settings, name: str, **when: Callable[[], Awaitable[Any]]) -> Process:
    """A replica that stops before or after a command."""
    return Process(Interrupted(client, name, **when), settings)


async def make_due(redis: Redis, session: Session) -> None:
    """Let the delay of the outbox's entries pass."""
    outbox = KEYS.of(session.id).outbox
    entries: list[Any] = await redis.zrange(outbox, 0, -1)
    for entry in entries:
        await redis.zadd(outbox, {entry: 1})


async def end_leases(redis: Redis) -> None:
    members: list[Any] = await redis.zrange(INBOX, 0, -1)
    for member in members:
        await redis.zadd(INBOX, {member: 1})


async def is_empty(redis: Redis, session: Session) -> bool:
    return not await redis.exists(KEYS.of(session.id).outbox, INBOX, ATTEMPTS)


# Dispatch


@pytest.mark.parametrize(
    ("command", "when"),
    [("add_to_inbox", "before"), ("add_to_inbox", "after"), ("ZREM", "before"), ("ZREM", "after")],
)
async def test_another_replica_completes_a_dispatch_that_stops(
    process: Process,
    redis_client: RedisClient,
    redis: Redis,
    settings: Settings,
    session: Session,
    command: str,
    when: str,
) -> None:
    message_id = await failing(redis_client, settings, command, **{when: fail}).send(session)
    await make_due(redis, session)

    await process.dispatcher.dispatch_left_entries()

    assert await process.leased_ids() == [message_id]
    assert await redis.zcard(KEYS.of(session.id).outbox) == 0


async def test_a_message_reaches_its_agent_although_the_sender_received_no_reply(
    process: Process, redis_client: RedisClient, redis: Redis, settings: Settings, session: Session
) -> None:
    with pytest.raises(StoreUnavailable):
        await failing(redis_client, settings, "send_message", after=fail).send(session)
    await make_due(redis, session)

    await process.dispatcher.dispatch_left_entries()

    [delivery] = await process.lease()
    assert delivery.message is not None
    assert delivery.message.content == "Hello"


async def test_a_replica_that_stops_after_leasing_an_outbox_loses_nothing(
    process: Process, redis_client: RedisClient, redis: Redis, settings: Settings, session: Session
) -> None:
    message_id = await failing(redis_client, settings, "add_to_inbox", before=fail).send(session)
    await make_due(redis, session)
    with pytest.raises(StoreUnavailable):
        await failing(redis_client, settings, "add_to_inbox", before=fail).dispatcher.dispatch_left_entries()
    await process.dispatcher.dispatch_left_entries()
    assert await process.leased_ids() == []  # the lease of the stopped replica has not ended
    await make_due(redis, session)

    await process.dispatcher.dispatch_left_entries()

    assert await process.leased_ids() == [message_id]


async def test_a_second_dispatch_of_an_answered_message_delivers_nothing(
    process: Process, redis_client: RedisClient, redis: Redis, settings: Settings, session: Session
) -> None:
    message_id = await failing(redis_client, settings, "ZREM", before=fail).send(session)
    await process.lease()
    await process.answer(session, message_id)
    await make_due(redis, session)

    await process.dispatcher.dispatch_left_entries()

    assert await process.leased_ids() == []
    assert await is_empty(redis, session)


async def test_a_cancellation_that_overtakes_its_message_prevents_the_delivery(
    process: Process, redis_client: RedisClient, redis: Redis, settings: Settings, session: Session
) -> None:
    message_id = await failing(redis_client, settings, "add_to_inbox", before=fail).send(session)
    await process.history.cancel(session.id, message_id)
    await process.dispatcher.aclose()
    await make_due(redis, session)

    await process.dispatcher.dispatch_left_entries()

    assert [(delivery.message_id, delivery.message) for delivery in await process.lease()] == [(message_id, None)]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_another_replica_dispatches_a_cancellation(
    process: Process, redis_client: RedisClient, redis: Redis, settings: Settings, session: Session, when: str
) -> None:
    message_id = await process.send(session)
    await process.lease()
    stopped = failing(redis_client, settings, "add_to_inbox", **{when: fail})
    await stopped.history.cancel(session.id, message_id)
    await stopped.dispatcher.aclose()
    await make_due(redis, session)

    await process.dispatcher.dispatch_left_entries()

    assert [(delivery.message_id, delivery.message) for delivery in await process.lease()] == [(message_id, None)]


# Consumers


async def test_another_consumer_receives_the_message_of_one_that_stops(
    process: Process, redis: Redis, session: Session
) -> None:
    message_id = await process.send(session)
    [first] = await process.lease()
    await end_leases(redis)

    [second] = await process.lease()

    assert (first.message_id, second.message_id) == (message_id, message_id)
    assert (first.attempt, second.attempt) == (1, 2)


async def test_a_lease_without_a_reply_ends(
    process: Process, redis_client: RedisClient, redis: Redis, settings: Settings, session: Session
) -> None:
    message_id = await process.send(session)
    with pytest.raises(StoreUnavailable):
        await failing(redis_client, settings, "lease_deliveries", after=fail).lease()
    assert await process.leased_ids() == []
    await end_leases(redis)

    assert await process.leased_ids() == [message_id]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_answered_message_does_not_return_although_its_delivery_was_not_completed(
    process: Process, redis_client: RedisClient, redis: Redis, settings: Settings, session: Session, when: str
) -> None:
    message_id = await process.send(session)
    await process.lease()
    await failing(redis_client, settings, "complete_deliveries", **{when: fail}).answer(session, message_id)
    await end_leases(redis)

    assert await process.leased_ids() == []
    assert await is_empty(redis, session)


async def test_a_cancelled_message_is_not_delivered_again(process: Process, redis: Redis, session: Session) -> None:
    message_id = await process.send(session)
    await process.lease()
    await process.history.cancel(session.id, message_id)
    await process.dispatcher.aclose()
    await end_leases(redis)

    [delivery] = await process.lease()

    assert (delivery.message_id, delivery.message) == (message_id, None)


# Manual changes


def reports(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [event for event in logged_events(caplog) if event["event"] == UNREADABLE]


@pytest.mark.parametrize("member", MALFORMED)
async def test_a_malformed_entry_of_an_outbox_is_reported_once_and_removed(
    process: Process,
    redis_client: RedisClient,
    redis: Redis,
    settings: Settings,
    session: Session,
    caplog: pytest.LogCaptureFixture,
    member: bytes,
) -> None:
    message_id = await failing(redis_client, settings, "add_to_inbox", before=fail).send(session)
    outbox = KEYS.of(session.id).outbox
    await redis.zadd(outbox, {member: 0, f"{AGENT} ".encode() + member: 0})
    await make_due(redis, session)

    await process.dispatcher.dispatch_left_entries()

    assert await process.leased_ids() == [message_id]
    assert await redis.zcard(outbox) == 0
    assert len(reports(caplog)) == 2
    assert not any("message" in event for event in reports(caplog))


@pytest.mark.parametrize("member", MALFORMED)
async def test_a_malformed_member_of_an_inbox_is_reported_once_and_removed(
    process: Process, redis: Redis, session: Session, caplog: pytest.LogCaptureFixture, member: bytes
) -> None:
    message_id = await process.send(session)
    await redis.zadd(INBOX, {member: 0})

    assert await process.leased_ids() == [message_id]
    assert (await redis.zcard(INBOX), await redis.hlen(ATTEMPTS)) == (1, 1)
    [report] = reports(caplog)
    assert set(report) == {"level", "event", "record"}


async def test_an_outbox_of_another_type_is_replaced(process: Process, redis: Redis, session: Session) -> None:
    outbox = KEYS.of(session.id).outbox
    await redis.set(outbox, "a string", px=MINUTE_MS)

    message_id = await process.send(session)

    assert await process.leased_ids() == [message_id]


async def test_an_outbox_of_another_type_does_not_block_other_shards(
    process: Process, redis_client: RedisClient, redis: Redis, settings: Settings, session: Session
) -> None:
    message_id = await failing(redis_client, settings, "add_to_inbox", before=fail).send(session)
    other = KEYS.outbox("00" if session.id[:2] != "00" else "01")
    await redis.set(other, "a string", px=MINUTE_MS)
    await make_due(redis, session)

    await process.dispatcher.dispatch_left_entries()

    assert await process.leased_ids() == [message_id]
    assert await redis.exists(other) == 0


@pytest.mark.parametrize("key", [INBOX, ATTEMPTS])
async def test_an_inbox_of_another_type_is_replaced(process: Process, redis: Redis, session: Session, key: str) -> None:
    await redis.set(key, "a string", px=MINUTE_MS)

    message_id = await process.send(session)

    assert await process.leased_ids() == [message_id]


@pytest.mark.parametrize("key", [INBOX, ATTEMPTS])
async def test_calls_of_an_inbox_of_another_type_succeed(process: Process, redis: Redis, key: str) -> None:
    calls = (process.lease(), process.inboxes.complete(AGENT, ["x"]), process.inboxes.extend(AGENT, ["x"]))

    for call in calls:
        await redis.set(key, "a string", px=MINUTE_MS)
        await call

    assert await process.lease() == []


async def test_a_number_of_attempts_that_is_none_starts_again(process: Process, redis: Redis, session: Session) -> None:
    message_id = await process.send(session)
    await redis.hset(ATTEMPTS, f"{session.id} {message_id}", "many")

    [delivery] = await process.lease()

    assert delivery.attempt == 1


async def replace_messages(redis: Redis, keys: SessionKeys) -> None:
    await redis.set(keys.messages, "a string", px=MINUTE_MS)


async def replace_sends(redis: Redis, keys: SessionKeys) -> None:
    await redis.set(keys.sends, "a string", px=MINUTE_MS)


async def remove_content(redis: Redis, keys: SessionKeys) -> None:
    entries: Any = await redis.xrange(keys.messages)
    [(entry_id, fields)] = entries
    del fields[b"content"]
    await redis.delete(keys.messages)
    await redis.xadd(keys.messages, fields, entry_id)
    await redis.pexpire(keys.messages, MINUTE_MS)


DAMAGES = {"messages": replace_messages, "sends": replace_sends, "content": remove_content}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_an_unreadable_message_does_not_block_the_inbox(
    process: Process, redis: Redis, session: Session, store: SessionStore, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    await process.send(session)
    readable = await process.send(await create_session(store))
    await DAMAGES[damage](redis, KEYS.of(session.id))

    assert await process.leased_ids() == [readable]
    assert await redis.zcard(INBOX) == 1
    assert len(reports(caplog)) == 1
