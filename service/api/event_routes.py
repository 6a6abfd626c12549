"""The stream of a session's events."""

import orjson
from aiohttp import web

from service.api import message_responses
from service.api.app_keys import ACCESS_LOG, HISTORY, HUB, STORE
from service.api.message_requests import time_of
from service.api.path_parameters import owner_id_of, session_id_of
from service.api.routes import RouteTable
from service.api.server.event_stream import COMMENT_SECONDS, EventStream, stream_response
from service.api.session_routes import SESSION
from service.auth.scopes import READ_AS_ANY
from service.errors import ServiceError, SessionExpired
from service.live.events import Draining, HistoryGap, LiveEvent, SessionChanged, SessionEnded
from service.live.hub import Listener
from service.messages.history import PageRequest
from service.messages.message import Cancellation, Chunk, Message

EVENTS = SESSION + "/events"
LAST_EVENT_ID_HEADER = "Last-Event-ID"

_REPLAY_PAGE = 100

routes = RouteTable(serve_sessions=True)


@routes.get(EVENTS, permission=READ_AS_ANY)
async def stream_events(request: web.Request) -> web.StreamResponse:
    """Stream a session's events, after the messages that followed `Last-Event-ID` or `after`."""
    session_id, owner_id, after = session_id_of(request), owner_id_of(request), _resume_after(request)
    store, hub = request.app[STORE], request.app[HUB]
    await store.get(session_id, owner_id)  # foreign and ended sessions must not become feeds
    async with hub.listening(session_id) as listener:
        session = await store.get(session_id, owner_id)

        async def write_events(stream: EventStream) -> None:
            await stream.send(message_responses.session_frame("session", session))
            last = after or 0
            if after is not None:
                request.app[ACCESS_LOG].metrics.listeners_resumed.inc()
                last = await _replay(stream, request, session_id, after)
            await _follow(stream, session_id, listener, last)

        return await stream_response(request, write_events)


def _resume_after(request: web.Request) -> int | None:
    """Return the time of the last message that the client has. Raises InvalidRequest."""
    header = request.headers.get(LAST_EVENT_ID_HEADER)
    if header is not None:
        return time_of(LAST_EVENT_ID_HEADER, header)
    return time_of("after", request.query.get("after", ""))


async def _replay(stream: EventStream, request: web.Request, session_id: str, after: int) -> int:
    """Send the messages after a time, and return the time of the last one."""
    history = request.app[HISTORY]
    if await history.has_gap(session_id, after):
        await stream.send(_frame_of(HistoryGap(after)))
    has_more = True
    while has_more:
        page = await history.transcript(session_id, PageRequest(_REPLAY_PAGE, after=after, is_ascending=True))
        for message in page.messages:
            await stream.send(message_responses.message_frame(session_id, message))
            after = message.created_at_ms
        has_more = page.has_more
    return after


async def _follow(stream: EventStream, session_id: str, listener: Listener, after: int) -> None:
    """Send live events until the session ends, the replica stops or the client disconnects."""
    while True:
        event = await listener.next(COMMENT_SECONDS)
        match event:
            case None:
                await stream.send_comment()
            case Message():
                if event.created_at_ms > after:  # else it was replayed
                    await stream.send(message_responses.message_frame(session_id, event))
            case Draining():
                await stream.send_reconnect()
                return
            case SessionEnded():
                await stream.send(_ended_frame(session_id, event.error))
                return
            case _:
                await stream.send(_frame_of(event))


def _frame_of(event: LiveEvent) -> bytes:
    match event:
        case Chunk():
            return message_responses.chunk_frame(event)
        case Cancellation():
            return message_responses.cancelled_frame(event)
        case HistoryGap():
            return message_responses.frame("reset", orjson.dumps({"after": event.after_ms}))
        case SessionChanged():
            return message_responses.session_frame(event.change, event.session)
        case _:
            raise TypeError(f"{type(event).__name__} has no frame of its own")


def _ended_frame(session_id: str, error: Exception) -> bytes:
    assert isinstance(error, ServiceError)
    name = "expired" if isinstance(error, SessionExpired) else "deleted"
    return message_responses.frame(name, orjson.dumps({"sessionId": session_id, **error.facts}))
