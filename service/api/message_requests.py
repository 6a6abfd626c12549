"""Parsing and validation of requests about messages. An error names every invalid member."""

import re
from typing import Annotated, Any, Literal, cast

import orjson
from aiohttp import web
from pydantic import BeforeValidator, Field, ValidationInfo

from service.api.app_keys import CALLER
from service.api.request_bodies import Metadata, RequestBody, Uuid
from service.api.request_headers import idempotency_key_of
from service.errors import InvalidRequest
from service.identifiers import parse_uuid
from service.messages.history import PageRequest
from service.messages.message import NewMessage, Role, is_user_message_id
from service.settings import MAX_METADATA_BYTES, Settings
from service.timestamps import parse_timestamp_ms

DEFAULT_LIMIT, MAX_LIMIT = 50, 100
MAX_ATTACHMENTS = 20
MAX_ATTACHMENTS_BYTES = MAX_METADATA_BYTES
MAX_CHUNK_INDEX = 100_000
MAX_DELIVERIES = 100

Transport = Literal["websocket", "http", "sse"]

_MODES: dict[str, Transport] = {"sync": "http", "stream": "sse"}
_TRANSPORTS = ("websocket", "http", "sse")
_CLIENT_MESSAGE_ID = re.compile(r"[!-~]{1,255}")
_ATTACHMENT_STRINGS = ("type", "url", "name", "mimeType")


def utf16_length(text: str) -> int:
    """Return the number of UTF-16 units, which is the length of the string in JavaScript."""
    return len(text) + sum(character > "\uffff" for character in text)


def _content(value: object, info: ValidationInfo) -> str:
    maximum = cast(Settings, info.context).session_max_message_length
    if not isinstance(value, str):
        raise ValueError("must be a string")
    length = utf16_length(value)
    if not 1 <= length <= maximum:
        raise ValueError(f"must have 1 to {maximum} UTF-16 units (got {length})")
    return value


def _transport(value: object) -> Transport | None:
    if value is None:
        return None
    if value not in (*_TRANSPORTS, *_MODES):
        raise ValueError(f"must be one of {', '.join(_TRANSPORTS)}")
    name = str(value)
    return _MODES.get(name) or cast(Transport, name)


def _client_message_id(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not _CLIENT_MESSAGE_ID.fullmatch(value):
        raise ValueError("must be a string of 1 to 255 visible ASCII characters")
    return value


def _attachments(value: object) -> bytes:
    if value is None or value == []:
        return b""
    if not isinstance(value, list):
        raise ValueError("must be a list of objects")
    if len(value) > MAX_ATTACHMENTS:
        raise ValueError(f"must have at most {MAX_ATTACHMENTS} entries (got {len(value)})")
    for index, attachment in enumerate(value):
        _require_attachment(index, attachment)
    return _encode(value, MAX_ATTACHMENTS_BYTES)


def _require_attachment(index: int, attachment: object) -> None:
    if not isinstance(attachment, dict):
        raise ValueError(f"entry {index} must be an object")
    for name in ("type", "url"):
        if not attachment.get(name):
            raise ValueError(f"entry {index} requires {name}")
    for name in _ATTACHMENT_STRINGS:
        if name in attachment and not isinstance(attachment[name], str):
            raise ValueError(f"entry {index}: {name} must be a string")
    size = attachment.get("size", 0)
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise ValueError(f"entry {index}: size must be a number of bytes")


def _actions(value: object) -> bytes:
    if value is None or value == []:
        return b""
    if not isinstance(value, list) or not all(isinstance(action, str) for action in value):
        raise ValueError("must be a list of strings")
    return _encode(value, MAX_METADATA_BYTES)


def _thought(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value.encode(errors="replace")) > MAX_METADATA_BYTES:
        raise ValueError(f"must be a string of at most {MAX_METADATA_BYTES} bytes")
    return value


def _message_id(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not is_user_message_id(value.lower()):
        raise ValueError("must be the id of a message of the session's user")
    return value.lower()


def _optional_uuid(value: object) -> str:
    return "" if value is None else parse_uuid(value)


def _index(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_CHUNK_INDEX:
        raise ValueError(f"must be a whole number between 0 and {MAX_CHUNK_INDEX}")
    return value


def _delivery_ids(value: object) -> list[str]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_DELIVERIES:
        raise ValueError(f"must be a list of 1 to {MAX_DELIVERIES} delivery ids")
    if not all(isinstance(item, str) and "\n" not in item and 0 < len(item) <= 200 for item in value):
        raise ValueError("must hold the ids of deliveries")
    return value


def _encode(value: object, max_bytes: int) -> bytes:
    try:
        encoded = orjson.dumps(value)
    except orjson.JSONEncodeError:
        raise ValueError("holds a value that cannot be stored") from None
    if len(encoded) > max_bytes:
        raise ValueError(f"must be at most {max_bytes} bytes as JSON, not {len(encoded)}")
    return encoded


Content = Annotated[str, BeforeValidator(_content)]


class SendMessageBody(RequestBody):
    """A message. Unknown members are ignored."""

    content: Content
    attachments: Annotated[bytes, BeforeValidator(_attachments)] = b""
    metadata: Metadata = b""
    transport: Annotated[Transport | None, BeforeValidator(_transport)] = None
    mode: Annotated[Transport | None, BeforeValidator(_transport)] = None
    client_message_id: Annotated[str, BeforeValidator(_client_message_id)] = ""
    author_id: Annotated[str, BeforeValidator(_optional_uuid)] = ""
    in_reply_to: Annotated[str, BeforeValidator(_message_id)] = ""
    thought: Annotated[str, BeforeValidator(_thought)] = ""
    actions: Annotated[bytes, BeforeValidator(_actions)] = b""

    @property
    def chosen_transport(self) -> Transport:
        return self.transport or self.mode or "websocket"


class ChunkBody(RequestBody):
    """A part of an answer."""

    index: Annotated[int, BeforeValidator(_index)]
    chunk: Content


class DeliveriesBody(RequestBody):
    """Ids of deliveries."""

    deliveries: Annotated[list[str], BeforeValidator(_delivery_ids)]


class SubmitBody(RequestBody):
    """A message in the form of the reference implementation. Unknown members are ignored."""

    channel_id: str = Field(alias="channel_id")
    author_id: Uuid = Field(alias="author_id")
    content: Content
    source_type: str = Field("", alias="source_type")
    in_reply_to_message_id: Any = Field(None, alias="in_reply_to_message_id")
    raw_message: Any = Field(None, alias="raw_message")
    metadata: Metadata = b""


def new_message_from(request: web.Request, body: SendMessageBody) -> NewMessage:
    """Build the message to send. Raises InvalidRequest."""
    key = None if body.client_message_id else idempotency_key_of(request)
    message = NewMessage(
        body.content,
        _role_of(request, body.author_id),
        body.author_id,
        body.attachments,
        b"" if body.metadata == b"{}" else body.metadata,
        body.actions,
        body.thought,
        body.in_reply_to,
        body.client_message_id or ("" if key is None else key.key),
    )
    if message.role == "user" and message.members_of_answers:
        raise InvalidRequest(dict.fromkeys(message.members_of_answers, "is allowed for messages of the agent only"))
    return message


def new_message_from_submit(request: web.Request, body: SubmitBody) -> NewMessage:
    """Build the message of a request in the form of the reference implementation. Raises InvalidRequest."""
    raw = body.raw_message if isinstance(body.raw_message, dict) else {}
    reply_to = str(body.in_reply_to_message_id or "").lower()
    try:
        thought, actions = _thought(raw.get("thought")), _actions(raw.get("actions"))
    except ValueError as error:
        raise InvalidRequest({"raw_message": str(error)}) from None
    return NewMessage(
        body.content,
        _role_of(request, body.author_id),
        body.author_id,
        metadata=b"" if body.metadata == b"{}" else body.metadata,
        actions=actions,
        thought=thought,
        in_reply_to=reply_to if is_user_message_id(reply_to) else "",
    )


def page_request_of(request: web.Request) -> PageRequest:
    """Parse `limit`, `before`, `after` and `order`. Raises InvalidRequest. A limit beyond the bounds is adjusted."""
    errors: dict[str, str] = {}
    query = request.query
    limit = _limit(query.get("limit", ""), errors)
    before = _time("before", query.get("before", ""), errors)
    after = _time("after", query.get("after", ""), errors)
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        errors["order"] = "must be asc or desc"
    if errors:
        raise InvalidRequest(errors)
    return PageRequest(limit, after, before, order == "asc")


def time_of(name: str, value: str) -> int | None:
    """Parse a time in milliseconds or ISO 8601. None if it is empty. Raises InvalidRequest."""
    errors: dict[str, str] = {}
    parsed = _time(name, value, errors)
    if errors:
        raise InvalidRequest(errors)
    return parsed


def _limit(value: str, errors: dict[str, str]) -> int:
    if not value:
        return DEFAULT_LIMIT
    if not re.fullmatch(r"-?[0-9]{1,9}", value):
        errors["limit"] = "must be a whole number"
        return DEFAULT_LIMIT
    return min(max(int(value), 1), MAX_LIMIT)


def _time(name: str, value: str, errors: dict[str, str]) -> int | None:
    if not value:
        return None
    try:
        return parse_timestamp_ms(value)
    except ValueError:
        errors[name] = "must be a time in milliseconds or in ISO 8601"
        return None


def _role_of(request: web.Request, author_id: str) -> Role:
    """Return the role of the author: the caller's scopes decide. Callers that may be both choose by `authorId`."""
    caller = request.get(CALLER)
    if caller is None:
        return "either" if author_id else "user"
    if not caller.is_agent:
        return "user"
    return "either" if author_id and "write" in caller.scopes else "agent"
