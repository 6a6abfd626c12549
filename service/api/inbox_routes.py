"""The inboxes of agents: receive messages, and complete or extend deliveries."""

import re

import orjson
from aiohttp import web

from service.api import message_responses
from service.api.app_keys import CALLER, INBOX_CONSUMERS, INBOXES, SETTINGS
from service.api.message_requests import DeliveriesBody
from service.api.path_parameters import agent_id_of
from service.api.request_bodies import read_body
from service.api.routes import RouteTable
from service.api.server.event_stream import COMMENT_SECONDS, EventStream, stream_response
from service.auth.scopes import ANSWER
from service.errors import Forbidden, InvalidRequest
from service.live.inbox_consumers import InboxConsumer

INBOX = "/api/messaging/agents/{agent_id}/inbox"
DEFAULT_DELIVERIES, MAX_DELIVERIES = 10, 100
MAX_WAIT_SECONDS = 60

_EVENT_STREAM = "text/event-stream"
_WHOLE_NUMBER = re.compile(r"[0-9]{1,3}")
_NUMBER = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3})?")

routes = RouteTable(serve_sessions=True)


@routes.get(INBOX, permission=ANSWER)
async def receive(request: web.Request) -> web.StreamResponse:
    """Return leased deliveries after at most `wait` seconds, or stream them as events."""
    agent_id, limit, wait_seconds = _agent_of(request), _limit_of(request), _wait_of(request)

    def is_connected() -> bool:
        return request.transport is not None and not request.transport.is_closing()

    async with request.app[INBOX_CONSUMERS].consumer_of(agent_id, is_connected) as consumer:
        if _EVENT_STREAM in request.headers.get("Accept", ""):
            return await _stream(request, agent_id, consumer, limit)
        return message_responses.deliveries_response(await consumer.lease(limit, wait_seconds))


@routes.post(INBOX + "/ack", permission=ANSWER)
async def complete(request: web.Request) -> web.StreamResponse:
    body = await read_body(request, DeliveriesBody, request.app[SETTINGS])
    number = await request.app[INBOXES].complete(_agent_of(request), body.deliveries)
    return message_responses.completed_response("completed", number)


@routes.post(INBOX + "/extend", permission=ANSWER)
async def extend(request: web.Request) -> web.StreamResponse:
    body = await read_body(request, DeliveriesBody, request.app[SETTINGS])
    number = await request.app[INBOXES].extend(_agent_of(request), body.deliveries)
    return message_responses.completed_response("extended", number)


async def _stream(request: web.Request, agent_id: str, consumer: InboxConsumer, limit: int) -> web.StreamResponse:
    """Stream deliveries, of which at most `limit` are leased to this consumer at the same time."""
    pause_seconds = min(COMMENT_SECONDS, request.app[SETTINGS].session_inbox_lease_seconds)

    async def write_events(stream: EventStream) -> None:
        leased: set[str] = set()
        while not consumer.is_draining:
            leased = await request.app[INBOXES].find_leased(agent_id, sorted(leased))
            free = limit - len(leased)
            if free == 0:
                await consumer.wait_for_change(pause_seconds)
                await stream.send_comment()
                continue
            deliveries = await consumer.lease(free, COMMENT_SECONDS)
            if not deliveries:
                await stream.send_comment()
            for delivery in deliveries:
                leased.add(delivery.id)
                document = message_responses.delivery_document(delivery)
                await stream.send(message_responses.frame("delivery", orjson.dumps(document)))
        await stream.send_reconnect()

    return await stream_response(request, write_events)


def _agent_of(request: web.Request) -> str:
    """Return the agent of the path. Raises Forbidden for the agent of another key."""
    agent_id = agent_id_of(request)
    caller = request.get(CALLER)
    if caller is not None and caller.agent_id not in (None, agent_id):
        raise Forbidden("The key is restricted to another agent.")
    return agent_id


def _limit_of(request: web.Request) -> int:
    value = request.query.get("max", str(DEFAULT_DELIVERIES))
    if not _WHOLE_NUMBER.fullmatch(value) or not 1 <= int(value) <= MAX_DELIVERIES:
        raise InvalidRequest({"max": f"must be a whole number between 1 and {MAX_DELIVERIES}"})
    return int(value)


def _wait_of(request: web.Request) -> float:
    value = request.query.get("wait", "0")
    if not _NUMBER.fullmatch(value) or float(value) > MAX_WAIT_SECONDS:
        raise InvalidRequest({"wait": f"must be a number of seconds between 0 and {MAX_WAIT_SECONDS}"})
    return float(value)
