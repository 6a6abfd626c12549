"""The message history: send, read, answer in parts, and cancel. One script per verb, as for sessions."""

from collections.abc import Awaitable, Sequence
from typing import NamedTuple

import orjson

from service.errors import InvalidRequest, SessionNotFound
from service.messages.dispatcher import DISPATCH_DELAY_MS, Dispatcher
from service.messages.errors import (
    ChunkOutOfOrder,
    ClientMessageIdReused,
    MessageAlreadyAnswered,
    MessageNotFound,
    MessagesDisabled,
)
from service.messages.message import (
    Cancellation,
    Chunk,
    Message,
    MessagePage,
    NewMessage,
    Role,
    SentMessage,
    answer_id_of,
    is_user_message_id,
    live_event_from,
    message_from,
    new_id_suffix,
    sent_at_of,
)
from service.observability.metrics import Metrics
from service.redis_client.client import RedisClient, Reply
from service.sessions import scripts
from service.sessions.events import SessionEvents
from service.sessions.keys import Keys
from service.sessions.session import LOST, Session, error_for_reply, is_issued_id
from service.sessions.store import readable_reply, readable_session
from service.settings import Settings
from service.shared_secret import SharedSecret

MAX_PAGE_BYTES = 256 * 1024
MAX_CHUNKS = 2000
"""The most parts of answers that a session keeps for listeners that reconnect."""
CHUNK_LIFETIME_MS = 60_000

_OTHER_AUTHOR: dict[Role, str] = {
    "user": "must be the user of the session; sending for the agent requires the scope agent",
    "agent": "must be the agent of the session",
    "either": "must be the user or the agent of the session",
}
_FINGERPRINT = b"message"


class PageRequest(NamedTuple):
    """Messages created after and before times in milliseconds, both exclusive."""

    limit: int
    after: int | None = None
    before: int | None = None
    is_ascending: bool = False


class NewEvents(NamedTuple):
    """Messages and parts of answers after a position, oldest first."""

    messages: list[Message]
    parts: list[tuple[str, Chunk | Cancellation]]
    """With the position of each part."""
    may_have_gap: bool
    """Whether messages after the position may have been dropped."""


class MessageHistory:
    """The messages of sessions. Every method raises StoreUnavailable, SessionNotFound and SessionExpired.

    With an `owner_id`, sessions of other users are not found; the owner `agent:<id>` is an agent.
    """

    def __init__(
        self,
        client: RedisClient,
        no_wait: RedisClient,
        keys: Keys,
        events: SessionEvents,
        dispatcher: Dispatcher,
        metrics: Metrics,
        shared_secret: SharedSecret,
        settings: Settings,
    ) -> None:
        self._client = client
        self._no_wait = no_wait
        self._keys = keys
        self._events = events
        self._dispatcher = dispatcher
        self._sent_by = {is_agent: metrics.messages.labels(_author(is_agent)) for is_agent in (False, True)}
        self._answer_seconds = metrics.answer_seconds
        self._shared_secret = shared_secret
        self._retention_ms = settings.retention_ms
        self._lifetime_ms = settings.message_lifetime_ms
        self._max_messages = settings.session_max_messages

    async def send(self, session_id: str, new: NewMessage, owner_id: str | None = None) -> SentMessage:
        """Append a message. A user's message is an activity, as a heartbeat is.

        With a client message id that its author used before, return the first message. Raises ClientMessageIdReused if
        that message was different, MessageNotFound if there is no message to answer, InvalidRequest for a wrong author,
        and MessagesDisabled.
        """
        await self._require_enabled(session_id, owner_id)
        _require_issued(session_id)
        keys = self._keys.of(session_id)
        command = scripts.SEND_MESSAGE.command(
            keys,
            id=session_id,
            retention_ms=self._retention_ms,
            owner_id=owner_id or "",
            role=new.role,
            author_id=new.author_id,
            id_suffix=new_id_suffix(),
            key=new.client_message_id,
            fingerprint=self._fingerprint(new),
            content=new.content,
            attachments=new.attachments,
            metadata=new.metadata,
            actions=new.actions,
            thought=new.thought,
            in_reply_to=new.in_reply_to,
            answer_id=answer_id_of(new.in_reply_to) if new.in_reply_to else "",
            max_messages=self._max_messages,
            dispatch_delay_ms=DISPATCH_DELAY_MS,
            outbox_lifetime_ms=self._lifetime_ms,
        )
        reply = await self._reply(session_id, self._client.execute(command))
        match reply:
            case [b"sent", now_ms, values, message_id, created_at, is_agent, was_renewed]:
                session = readable_session(session_id, values, now_ms, self._events)
                message = _message_from_request(new, session, message_id, created_at, is_agent)
                self._sent(session, message, bool(was_renewed))
                self._after_sending(session, message)
                return SentMessage(message, session, bool(was_renewed), is_replay=False)
            case [b"repeated", now_ms, values, message_id, created_at, is_agent]:
                session = readable_session(session_id, values, now_ms, self._events)
                message = _message_from_request(new, session, message_id, created_at, is_agent)
                return SentMessage(message, session, was_renewed=False, is_replay=True)
            case [b"key_reused"]:
                raise ClientMessageIdReused
            case [b"other_author"]:
                raise InvalidRequest({"authorId": _OTHER_AUTHOR[new.role]})
            case [b"not_agent"]:
                raise InvalidRequest(dict.fromkeys(new.members_of_answers, "is allowed for messages of the agent only"))
            case [b"unknown_message"]:
                raise MessageNotFound(session_id, new.in_reply_to)
            case _:
                raise self._error(session_id, reply)

    async def page(self, session_id: str, request: PageRequest, owner_id: str | None = None) -> MessagePage:
        """Read messages of a live session. This is not an activity. Raises MessagesDisabled."""
        await self._require_enabled(session_id, owner_id)
        return await self._read(session_id, request, owner_id, is_transcript=False)

    async def transcript(self, session_id: str, request: PageRequest, owner_id: str | None = None) -> MessagePage:
        """Read messages of a session, also after its end until the messages expire."""
        return await self._read(session_id, request, owner_id, is_transcript=True)

    async def answer_to(self, session_id: str, message_id: str) -> Message | Cancellation | None:
        """Return the first answer to a user's message, or its cancellation, if there is one. Checks no owner."""
        keys = self._keys.of(session_id)
        ((answer, cancelled_at),) = await self._client.query(
            ("HMGET", keys.sends, f"answer:{message_id}", f"cancelled:{message_id}")
        )
        if answer is None:
            return None if cancelled_at is None else Cancellation(message_id)
        entry_id = answer.partition(b" ")[2] + b"-0"
        (entries,) = await self._client.query(("XRANGE", keys.messages, entry_id, entry_id))
        return message_from(entries[0]) if entries else None

    async def append_chunk(self, session_id: str, chunk: Chunk, owner_id: str | None = None) -> bool:
        """Send a part of an answer to listeners. Return whether the message was cancelled.

        A part that was sent before is ignored. Raises MessageNotFound, MessageAlreadyAnswered, and ChunkOutOfOrder if
        an earlier part is missing.
        """
        _require_issued(session_id)
        _require_user_message_id(session_id, chunk.message_id)
        command = scripts.APPEND_CHUNK.command(
            self._keys.of(session_id),
            id=session_id,
            owner_id=owner_id or "",
            message_id=chunk.message_id,
            index=chunk.position,
            chunk=chunk.text,
            max_chunks=MAX_CHUNKS,
            lifetime_ms=CHUNK_LIFETIME_MS,
        )
        reply = await self._reply(session_id, self._no_wait.execute(command))
        match reply:
            case [b"appended" | b"repeated", is_cancelled]:
                return bool(is_cancelled)
            case [b"gap", next_index]:
                raise ChunkOutOfOrder(chunk.position, next_index)
            case [b"answered"]:
                raise MessageAlreadyAnswered(session_id, chunk.message_id)
            case [b"unknown_message"]:
                raise MessageNotFound(session_id, chunk.message_id)
            case _:
                raise self._error(session_id, reply)

    async def cancel(self, session_id: str, message_id: str, owner_id: str | None = None) -> None:
        """Cancel the answer to a user's message. Does nothing if it was answered. Raises MessageNotFound."""
        _require_issued(session_id)
        _require_user_message_id(session_id, message_id)
        command = scripts.CANCEL_MESSAGE.command(
            self._keys.of(session_id),
            id=session_id,
            owner_id=owner_id or "",
            message_id=message_id,
            max_chunks=MAX_CHUNKS,
            lifetime_ms=CHUNK_LIFETIME_MS,
            dispatch_delay_ms=DISPATCH_DELAY_MS,
            outbox_lifetime_ms=self._lifetime_ms,
        )
        reply = await self._reply(session_id, self._client.execute(command))
        match reply:
            case [b"cancelled", agent_id]:
                self._events.message_cancelled(session_id)
                self._dispatcher.dispatch_soon(session_id, f"{agent_id.decode()} {session_id} {message_id} cancel")
            case [b"repeated"] | [b"answered"]:
                pass
            case [b"unknown_message"]:
                raise MessageNotFound(session_id, message_id)
            case _:
                raise self._error(session_id, reply)

    async def last_created_at(self, session_id: str) -> int:
        """Return the time of the newest message in milliseconds, or 0 without messages. Checks no owner."""
        (entries,) = await self._client.query(("XREVRANGE", self._keys.of(session_id).messages, "+", "-", "COUNT", 1))
        return message_from(entries[0]).created_at_ms if entries else 0

    async def open_chunks(self, session_id: str) -> tuple[list[Chunk], str]:
        """Return the parts of answers that are not complete, and the position behind them. Checks no owner."""
        keys = self._keys.of(session_id)
        (entries,) = await self._client.query(("XRANGE", keys.chunks, "-", "+"))
        if not entries:
            return [], ""
        events = list(map(live_event_from, entries))
        message_ids = list({event.message_id for event in events})
        (next_indexes,) = await self._client.query(
            ("HMGET", keys.sends, *[f"chunks:{message_id}" for message_id in message_ids])
        )  # absent after the answer, and after the message was dropped
        closed = {message_id for message_id, index in zip(message_ids, next_indexes, strict=True) if index is None}
        closed |= {event.message_id for event in events if isinstance(event, Cancellation)}
        chunks = [event for event in events if isinstance(event, Chunk) and event.message_id not in closed]
        return chunks, entries[-1][0].decode()

    async def has_gap(self, session_id: str, after_ms: int) -> bool:
        """Whether messages after a message may have been dropped to make room. Checks no owner."""
        messages = self._keys.of(session_id).messages
        found, oldest, length = await self._client.query(
            ("XRANGE", messages, f"{after_ms}-0", f"{after_ms}-0"),
            ("XRANGE", messages, "-", "+", "COUNT", 1),
            ("XLEN", messages),
        )
        if found or not oldest or length < self._max_messages:
            return False
        return message_from(oldest[0]).created_at_ms > after_ms

    async def read_new(self, session_id: str, after_ms: int, after_chunk: str) -> NewEvents:
        """Read messages and parts of answers after a position, oldest first. Checks no owner."""
        keys = self._keys.of(session_id)
        entries, parts = await self._client.query(
            ("XRANGE", keys.messages, f"{after_ms}-0", "+", "COUNT", 101),
            ("XRANGE", keys.chunks, f"({after_chunk}" if after_chunk else "-", "+"),
        )
        messages = list(map(message_from, entries))
        has_last = bool(messages) and messages[0].created_at_ms == after_ms
        return NewEvents(
            messages[1:] if has_last else messages,
            [(part[0].decode(), live_event_from(part)) for part in parts],
            may_have_gap=bool(messages and after_ms and not has_last),
        )

    async def _read(
        self, session_id: str, request: PageRequest, owner_id: str | None, *, is_transcript: bool
    ) -> MessagePage:
        _require_issued(session_id)
        is_forward = request.is_ascending or (request.after is not None and request.before is None)
        command = scripts.READ_MESSAGES.command(
            self._keys.of(session_id),
            owner_id=owner_id or "",
            first="-" if request.after is None else f"({request.after}-0",
            last="+" if request.before is None else f"({max(request.before, 1)}-0",  # Redis rejects (0-0
            direction="forward" if is_forward else "backward",
            limit=request.limit,
            max_bytes=MAX_PAGE_BYTES,
            is_transcript="true" if is_transcript else "false",
        )
        reply = await self._reply(session_id, self._client.query(command))
        match reply:
            case [b"page", has_more, entries]:
                messages = list(map(message_from, entries))
                is_reversed = is_forward != request.is_ascending
                return MessagePage(messages[::-1] if is_reversed else messages, bool(has_more))
            case _:
                raise self._error(session_id, reply)

    async def _require_enabled(self, session_id: str, owner_id: str | None) -> None:
        """Raises MessagesDisabled for live sessions, and the error of any other session."""
        if self._max_messages:
            return
        await self._read(session_id, PageRequest(1), owner_id, is_transcript=False)
        raise MessagesDisabled

    def _after_sending(self, session: Session, message: Message) -> None:
        """Move a user's message to the inbox, and complete the delivery that an agent answered."""
        if not message.is_agent:
            self._dispatcher.dispatch_soon(session.id, f"{session.agent_id} {session.id} {message.id}")
        elif message.in_reply_to:
            self._dispatcher.complete_soon(session.agent_id, session.id, message.in_reply_to)

    def _sent(self, session: Session, message: Message, was_renewed: bool) -> None:
        self._sent_by[message.is_agent].inc()
        if message.in_reply_to and message.id == answer_id_of(message.in_reply_to):
            self._answer_seconds.observe((message.created_at_ms - sent_at_of(message.in_reply_to)) / 1000)
        self._events.message_sent(session.id, is_agent=message.is_agent)
        if was_renewed:
            self._events.renewed_by_activity(session.id)

    def _fingerprint(self, new: NewMessage) -> str:
        if not new.client_message_id:
            return ""
        parts = (new.content, *[part.decode() for part in (new.attachments, new.metadata, new.actions)])
        text = orjson.dumps([*parts, new.thought, new.in_reply_to]).decode()
        return self._shared_secret.digest(text, purpose=_FINGERPRINT)

    async def _reply(self, session_id: str, replies: Awaitable[Sequence[Reply]]) -> Reply:
        return await readable_reply(session_id, replies, self._client, self._keys, self._events)

    def _error(self, session_id: str, reply: Sequence[Reply]) -> Exception:
        if reply == LOST:
            self._events.lost_session_requested(session_id)
        return error_for_reply(session_id, reply)


def _message_from_request(
    new: NewMessage, session: Session, message_id: bytes, created_at: bytes, is_agent: int
) -> Message:
    return Message(
        message_id.decode(),
        int(created_at),
        session.agent_id if is_agent else session.user_id,
        bool(is_agent),
        new.content,
        new.attachments,
        new.metadata,
        new.actions,
        new.thought,
        new.in_reply_to,
        new.client_message_id,
    )


def _author(is_agent: bool) -> str:
    return "agent" if is_agent else "user"


def _require_issued(session_id: str) -> None:
    if not is_issued_id(session_id):
        raise SessionNotFound(session_id)


def _require_user_message_id(session_id: str, message_id: str) -> None:
    if not is_user_message_id(message_id):
        raise MessageNotFound(session_id, message_id)
