"""Messages as values, and their form in Redis."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from service.sessions.session import Session

Role = Literal["user", "agent", "either"]

_USER_MESSAGE_VERSION = 7


class NewMessage(NamedTuple):
    """A message to send. `attachments`, `metadata` and `actions` are JSON; empty values are absent."""

    content: str
    role: Role = "user"
    """The role of the author. `either`: the user or the agent of the session, by the `author_id`."""
    author_id: str = ""
    """Must be the id of the session's user or agent. Empty: the one of the role."""
    attachments: bytes = b""
    metadata: bytes = b""
    actions: bytes = b""
    thought: str = ""
    in_reply_to: str = ""
    """The id of the user's message that an agent answers."""
    client_message_id: str = ""
    """Chosen by the client: a repeated request with the same id sends nothing."""

    @property
    def members_of_answers(self) -> list[str]:
        """The names of given members that only messages of the agent may have."""
        members = {"inReplyTo": self.in_reply_to, "thought": self.thought, "actions": self.actions}
        return [name for name, value in members.items() if value]


class Message(NamedTuple):
    """A message of a session's history. JSON values stay as stored; empty values are absent."""

    id: str
    created_at_ms: int
    author_id: str
    is_agent: bool
    content: str
    attachments: bytes = b""
    metadata: bytes = b""
    actions: bytes = b""
    thought: str = ""
    in_reply_to: str = ""
    client_message_id: str = ""


class SentMessage(NamedTuple):
    """A message in its session's history, the session after it, and whether this request added the message."""

    message: Message
    session: Session
    was_renewed: bool
    is_replay: bool


class MessagePage(NamedTuple):
    """Messages in the order of the request, and whether more follow."""

    messages: list[Message]
    has_more: bool


class Chunk(NamedTuple):
    """A part of the answer to a user's message. Positions start at 0; the API calls them `index`."""

    message_id: str
    position: int
    text: str


class Cancellation(NamedTuple):
    """The cancellation of the answer to a user's message."""

    message_id: str


def message_from(entry: Sequence[object]) -> Message:
    """Build a message from an entry of the stream."""
    entry_id, values = entry
    assert isinstance(entry_id, bytes)
    fields = fields_of(values)
    return Message(
        id=fields[b"id"].decode(),
        created_at_ms=created_at_of(entry_id),
        author_id=fields[b"authorId"].decode(),
        is_agent=fields[b"isAgent"] == b"true",
        content=fields[b"content"].decode(),
        attachments=fields.get(b"attachments", b""),
        metadata=fields.get(b"metadata", b""),
        actions=fields.get(b"actions", b""),
        thought=fields.get(b"thought", b"").decode(),
        in_reply_to=fields.get(b"inReplyTo", b"").decode(),
        client_message_id=fields.get(b"clientMessageId", b"").decode(),
    )


def live_event_from(entry: Sequence[object]) -> Chunk | Cancellation:
    """Build a chunk or a cancellation from an entry of the stream of recent chunks."""
    fields = fields_of(entry[1])
    message_id = fields[b"messageId"].decode()
    if b"cancelled" in fields:
        return Cancellation(message_id)
    return Chunk(message_id, int(fields[b"index"]), fields[b"chunk"].decode())


def fields_of(values: object) -> Mapping[bytes, bytes]:
    """Return the fields of a stream entry."""
    assert isinstance(values, list)
    return dict(zip(values[::2], values[1::2], strict=True))


def created_at_of(entry_id: bytes) -> int:
    """Return the milliseconds of a stream id."""
    return int(entry_id.partition(b"-")[0])


def new_id_suffix() -> str:
    """Return the random part of a UUIDv7."""
    return f"7{str(uuid4())[15:]}"


def answer_id_of(message_id: str) -> str:
    """Return the id of the first answer to a user's message. Chunks refer to it before the answer exists."""
    return str(uuid5(NAMESPACE_URL, message_id))


def sent_at_of(message_id: str) -> int:
    """Return the milliseconds in the id of a user's message."""
    return UUID(message_id).int >> 80


def is_user_message_id(candidate: str) -> bool:
    """Whether the service could have issued the id to a user's message."""
    try:
        parsed = UUID(candidate)
    except ValueError:
        return False
    return str(parsed) == candidate and parsed.version == _USER_MESSAGE_VERSION
