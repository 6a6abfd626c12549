"""The JSON of messages, and the frames of event streams."""

from collections.abc import Sequence
from typing import Any

import orjson

from service.api.response_bodies import json_response, session_json
from service.api.server.json_response import JsonResponse
from service.messages.inbox import Delivery
from service.messages.message import Cancellation, Chunk, Message, MessagePage, SentMessage, answer_id_of
from service.sessions.session import Session
from service.timestamps import iso

_IN_METADATA = ("thought", "actions", "attachments")
_DEFAULT_SERVER_ID = "00000000-0000-0000-0000-000000000000"


def message_document(session_id: str, message: Message) -> dict[str, Any]:
    """Return a message in the format of the API. `metadata` also holds the other optional members."""
    document: dict[str, Any] = {
        "id": message.id,
        "sessionId": session_id,
        "content": message.content,
        "authorId": message.author_id,
        "isAgent": message.is_agent,
        "createdAt": iso(message.created_at_ms),
    }
    extras = _extras(message)
    document |= extras
    document["metadata"] = _metadata(message, {name: extras[name] for name in _IN_METADATA if name in extras})
    if message.in_reply_to:
        document["inReplyTo"] = message.in_reply_to
    if message.client_message_id:
        document["clientMessageId"] = message.client_message_id
    return document


def user_message_document(session_id: str, message: Message) -> dict[str, Any]:
    """Return a message with the names of this API and the snake_case names of the reference implementation."""
    document = message_document(session_id, message)
    raw_message: dict[str, Any] = {"content": message.content}
    if message.attachments:
        raw_message["attachments"] = orjson.Fragment(message.attachments)
    return document | {
        "channel_id": session_id,
        "message_server_id": _DEFAULT_SERVER_ID,
        "author_id": message.author_id,
        "created_at": message.created_at_ms,
        "source_type": "agent_response" if message.is_agent else "user",
        "raw_message": raw_message,
    }


def agent_response_document(answer: Message) -> dict[str, Any]:
    """Return an answer in the form of the reference implementation's `agentResponse`."""
    document: dict[str, Any] = {"text": answer.content, "responseMessageId": answer.id, **_extras(answer)}
    if answer.in_reply_to:
        document["inReplyTo"] = answer.in_reply_to
    if answer.metadata:
        document["metadata"] = orjson.Fragment(answer.metadata)
    return document


def sent_response(sent: SentMessage, *, answer: Message | None = None, is_pending: bool = False) -> JsonResponse:
    """Return the response to a sent message: flat, nested, and in `data`, for each kind of client."""
    session_id = sent.session.id
    result: dict[str, Any] = {
        "success": True,
        "userMessage": user_message_document(session_id, sent.message),
        "sessionStatus": session_status(sent),
    }
    if answer is not None:
        result["agentResponse"] = agent_response_document(answer)
    if is_pending:
        result["pending"] = True
    body = {**message_document(session_id, sent.message), **result, "data": result}
    response = json_response(body, status=201)
    if sent.is_replay:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def submitted_response(sent: SentMessage) -> JsonResponse:
    document = user_message_document(sent.session.id, sent.message)
    return json_response({"success": True, "data": document}, status=201)


def session_status(sent: SentMessage) -> dict[str, Any]:
    session = sent.session
    return {
        "expiresAt": iso(session.expires_at_ms),
        "renewalCount": session.renewal_count,
        "wasRenewed": sent.was_renewed,
        "isNearExpiration": session.is_near_expiration,
    }


def messages_response(session_id: str, page: MessagePage) -> JsonResponse:
    body: dict[str, Any] = {
        "messages": [message_document(session_id, message) for message in page.messages],
        "hasMore": page.has_more,
    }
    if page.messages:
        times = [message.created_at_ms for message in page.messages]
        body["cursors"] = {"before": min(times), "after": max(times)}
    return json_response(body)


def chunk_response(*, is_cancelled: bool) -> JsonResponse:
    return json_response({"success": True, "cancelled": is_cancelled}, status=202)


def cancelled_response() -> JsonResponse:
    return json_response({"success": True}, status=202)


def deliveries_response(deliveries: Sequence[Delivery]) -> JsonResponse:
    return json_response({"deliveries": [delivery_document(delivery) for delivery in deliveries]})


def delivery_document(delivery: Delivery) -> dict[str, Any]:
    """Return a delivery. `session` is null if the session has ended."""
    document: dict[str, Any] = {
        "id": delivery.id,
        "type": "cancel" if delivery.message is None else "message",
        "attempt": delivery.attempt,
        "sessionId": delivery.session_id,
        "messageId": delivery.message_id,
    }
    if delivery.message is not None:
        document["message"] = message_document(delivery.session_id, delivery.message)
        document["session"] = _session(delivery.session)
    return document


def completed_response(name: str, number: int) -> JsonResponse:
    return json_response({"success": True, name: number})


# Frames of event streams


def frame(event: str, data: bytes, event_id: str = "") -> bytes:
    """Return one server-sent event. Lines end in LF."""
    id_line = f"id: {event_id}\n" if event_id else ""
    return b"%bevent: %b\ndata: %b\n\n" % (id_line.encode(), event.encode(), data)


def session_frame(event: str, session: Session) -> bytes:
    return frame(event, session_json(session))


def message_frame(session_id: str, message: Message) -> bytes:
    """Return the event `message`. Its id is the cursor from which a client resumes."""
    document = message_document(session_id, message)
    return frame("message", orjson.dumps(document), str(message.created_at_ms))


def chunk_frame(chunk: Chunk) -> bytes:
    """Return the event `chunk`. Its `messageId` is the id that the answer will have."""
    return frame(
        "chunk",
        orjson.dumps(
            {
                "type": "chunk",
                "messageId": answer_id_of(chunk.message_id),
                "inReplyTo": chunk.message_id,
                "index": chunk.position,
                "chunk": chunk.text,
                "text": chunk.text,
            }
        ),
    )


def cancelled_frame(cancellation: Cancellation) -> bytes:
    return frame("cancelled", orjson.dumps({"messageId": cancellation.message_id}))


def user_message_frame(sent: SentMessage) -> bytes:
    return frame("user_message", orjson.dumps(user_message_document(sent.session.id, sent.message)))


def done_frame(*, answer: Message | None = None, is_cancelled: bool = False, is_pending: bool = False) -> bytes:
    """Return the last event of a stream with an answer. `text` is null without an answer."""
    document: dict[str, Any] = {"type": "complete", "text": None}
    if answer is not None:
        document |= agent_response_document(answer)
    if is_cancelled:
        document["cancelled"] = True
    if is_pending:
        document["pending"] = True
    return frame("done", orjson.dumps(document))


def error_frame(error: str, code: str) -> bytes:
    return frame("error", orjson.dumps({"type": "error", "error": error, "code": code}))


def _extras(message: Message) -> dict[str, Any]:
    extras: dict[str, Any] = {}
    if message.thought:
        extras["thought"] = message.thought
    if message.actions:
        extras["actions"] = orjson.Fragment(message.actions)
    if message.attachments:
        extras["attachments"] = orjson.Fragment(message.attachments)
    return extras


def _metadata(message: Message, extras: dict[str, Any]) -> Any:
    if not extras:
        return orjson.Fragment(message.metadata or b"{}")
    merged = {**orjson.loads(message.metadata or b"{}"), **extras}
    return orjson.Fragment(orjson.dumps(merged))  # nested in a document, it could exceed the depth that orjson supports


def _session(session: Session | None) -> Any:
    return None if session is None else orjson.Fragment(session_json(session))
