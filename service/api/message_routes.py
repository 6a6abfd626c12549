"""The routes of messages: send, read, answer in parts, and cancel."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from service.api import message_responses
from service.api.app_keys import HISTORY, HUB, SETTINGS, STORE
from service.api.message_requests import (
    ChunkBody,
    SendMessageBody,
    SubmitBody,
    new_message_from,
    new_message_from_submit,
    page_request_of,
)
from service.api.path_parameters import message_id_of, owner_id_of, session_id_of
from service.api.request_bodies import read_body
from service.api.routes import RouteTable
from service.api.server.event_stream import COMMENT_SECONDS, EventStream, stream_response
from service.api.session_routes import SESSION
from service.auth.scopes import ANSWER, READ_AS_ANY, TRANSCRIPT, WRITE, WRITE_AS_ANY
from service.live.events import Draining, LiveEvent, SessionEnded
from service.live.hub import Listener, ListenerDropped
from service.messages.message import Cancellation, Chunk, Message, NewMessage, SentMessage

MESSAGES = SESSION + "/messages"
MESSAGE = MESSAGES + "/{message_id}"
SUBMIT = "/api/messaging/submit"
DISCONNECT_CHECK_SECONDS = 1
"""How often a request that waits for an answer checks whether its client is still connected."""

routes = RouteTable(serve_sessions=True)


@routes.post(MESSAGES, permission=WRITE_AS_ANY, is_audited=True)
async def send(request: web.Request) -> web.StreamResponse:
    body = await read_body(request, SendMessageBody, request.app[SETTINGS])
    new_message = new_message_from(request, body)
    match body.chosen_transport:
        case "websocket":
            return message_responses.sent_response(await _send(request, new_message))
        case "http":
            return await _send_and_wait(request, new_message)
        case "sse":
            return await _send_and_stream(request, new_message)


@routes.get(MESSAGES, permission=READ_AS_ANY, returns_page=True)
async def list_messages(request: web.Request) -> web.StreamResponse:
    session_id = session_id_of(request)
    page = await request.app[HISTORY].page(session_id, page_request_of(request), owner_id_of(request))
    return message_responses.messages_response(session_id, page)


@routes.get(SESSION + "/transcript", permission=TRANSCRIPT, returns_page=True)
async def get_transcript(request: web.Request) -> web.StreamResponse:
    session_id = session_id_of(request)
    page = await request.app[HISTORY].transcript(session_id, page_request_of(request), owner_id_of(request))
    return message_responses.messages_response(session_id, page)


@routes.post(MESSAGE + "/chunks", permission=ANSWER)
async def append_chunk(request: web.Request) -> web.StreamResponse:
    body = await read_body(request, ChunkBody, request.app[SETTINGS])
    chunk = Chunk(message_id_of(request), body.index, body.chunk)
    is_cancelled = await request.app[HISTORY].append_chunk(session_id_of(request), chunk, owner_id_of(request))
    return message_responses.chunk_response(is_cancelled=is_cancelled)


@routes.post(MESSAGE + "/cancel", permission=WRITE, is_audited=True)
async def cancel(request: web.Request) -> web.StreamResponse:
    await request.app[HISTORY].cancel(session_id_of(request), message_id_of(request), owner_id_of(request))
    return message_responses.cancelled_response()


@routes.post(SUBMIT, permission=ANSWER, is_audited=True)
async def submit(request: web.Request) -> web.StreamResponse:
    """Accept the answer of an agent in the form of the reference implementation."""
    body = await read_body(request, SubmitBody, request.app[SETTINGS])
    new_message = new_message_from_submit(request, body)
    sent = await request.app[HISTORY].send(body.channel_id.lower(), new_message, owner_id_of(request))
    return message_responses.submitted_response(sent)


async def _send(request: web.Request, new_message: NewMessage) -> SentMessage:
    return await request.app[HISTORY].send(session_id_of(request), new_message, owner_id_of(request))


@asynccontextmanager
async def _listening(request: web.Request) -> AsyncIterator[Listener]:
    """Add a listener. Raises the errors of a session that the caller has no access to, which must not become a feed."""
    session_id = session_id_of(request)
    await request.app[STORE].get(session_id, owner_id_of(request))
    async with request.app[HUB].listening(session_id) as listener:
        yield listener


async def _send_and_wait(request: web.Request, new_message: NewMessage) -> web.StreamResponse:
    """Send a message and wait for its answer. The message is stored, whether the answer comes in time or not."""
    async with _listening(request) as listener:
        sent = await _send(request, new_message)
        answer = await _answer_to(sent, listener, request)
    is_pending = not isinstance(answer, Message | Cancellation)
    return message_responses.sent_response(
        sent, answer=answer if isinstance(answer, Message) else None, is_pending=is_pending
    )


async def _answer_to(sent: SentMessage, listener: Listener, request: web.Request) -> LiveEvent | None:
    """Return the answer or the cancellation, or an event after which neither comes, or None after a timeout."""
    if sent.message.is_agent:
        return None
    if (earlier := await _earlier_answer(sent, request)) is not None:
        return earlier
    loop = asyncio.get_running_loop()
    deadline = loop.time() + request.app[SETTINGS].session_message_wait_seconds
    while (remaining := deadline - loop.time()) > 0:
        try:
            event = await listener.next(min(remaining, DISCONNECT_CHECK_SECONDS))
        except ListenerDropped:
            return None
        if event is None:
            if request.transport is None:
                return None
        elif isinstance(event, SessionEnded | Draining) or _completes(event, sent.message):
            return event
    return None


async def _earlier_answer(sent: SentMessage, request: web.Request) -> Message | Cancellation | None:
    """Return the answer to a message that was sent before, or its cancellation."""
    return await request.app[HISTORY].answer_to(sent.session.id, sent.message.id) if sent.is_replay else None


def _completes(event: LiveEvent, message: Message) -> bool:
    """Whether an event is the answer to a message, or its cancellation. A later answer may name no message."""
    match event:
        case Message(is_agent=True):
            is_later = event.created_at_ms > message.created_at_ms
            return event.in_reply_to == message.id or (is_later and not event.in_reply_to)
        case Cancellation():
            return event.message_id == message.id
        case _:
            return False


async def _send_and_stream(request: web.Request, new_message: NewMessage) -> web.StreamResponse:
    async with _listening(request) as listener:
        sent = await _send(request, new_message)

        async def write_events(stream: EventStream) -> None:
            await stream.send(message_responses.user_message_frame(sent))
            await _stream_answer(stream, sent, listener, request)

        return await stream_response(
            request,
            write_events,
            failure=message_responses.error_frame(
                "The answer cannot be read now. The message is stored.", "UNAVAILABLE"
            ),
            extra_headers={"Idempotency-Replayed": "true"} if sent.is_replay else {},
        )


async def _stream_answer(stream: EventStream, sent: SentMessage, listener: Listener, request: web.Request) -> None:
    """Send the parts of the answer and then the answer. The stream ends if the agent is silent for too long."""
    message = sent.message
    if (earlier := await _earlier_answer(sent, request)) is not None:
        await stream.send(_done_frame(earlier))
        return
    loop = asyncio.get_running_loop()
    wait_seconds = request.app[SETTINGS].session_message_wait_seconds
    deadline = loop.time() + wait_seconds
    while True:
        remaining = deadline - loop.time()
        event = await listener.next(min(max(remaining, 0), COMMENT_SECONDS))
        match event:
            case None if remaining <= 0:
                await stream.send(message_responses.done_frame(is_pending=True))
                return
            case None:
                await stream.send_comment()
            case Chunk() if event.message_id == message.id:
                deadline = loop.time() + wait_seconds
                await stream.send(message_responses.chunk_frame(event))
            case Message() | Cancellation() if _completes(event, message):
                await stream.send(_done_frame(event))
                return
            case SessionEnded():
                await stream.send(message_responses.error_frame("The session has ended.", "SESSION_ENDED"))
                return
            case Draining():
                await stream.send_reconnect()
                await stream.send(message_responses.done_frame(is_pending=True))
                return
            case _:
                pass


def _done_frame(event: Message | Cancellation) -> bytes:
    if isinstance(event, Message):
        return message_responses.done_frame(answer=event)
    return message_responses.done_frame(is_cancelled=True)
