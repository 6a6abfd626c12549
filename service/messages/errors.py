"""The errors of messages."""

from service.errors import ServiceError


class MessageNotFound(ServiceError):
    """The session has no message of its user with this id, or it was dropped."""

    status, code, message = 404, "MESSAGE_NOT_FOUND", "Message not found"

    def __init__(self, session_id: str, message_id: str) -> None:
        super().__init__(
            f"The session has no message {message_id} of its user.", sessionId=session_id, messageId=message_id
        )


class MessageAlreadyAnswered(ServiceError):
    """The message was answered. Further parts of the answer are too late."""

    status, code, message = 409, "MESSAGE_ALREADY_ANSWERED", "Message was already answered"

    def __init__(self, session_id: str, message_id: str) -> None:
        super().__init__("The answer to this message is complete.", sessionId=session_id, messageId=message_id)


class ChunkOutOfOrder(ServiceError):
    """A part of an answer has an index ahead of the next one."""

    status, code, message = 409, "CHUNK_OUT_OF_ORDER", "Chunk is out of order"

    def __init__(self, index: int, next_index: int) -> None:
        super().__init__(f"index must be {next_index} (got {index}).", nextIndex=next_index)


class ClientMessageIdReused(ServiceError):
    """The author used the clientMessageId or Idempotency-Key for a different message in this session."""

    status, code, message = 422, "CLIENT_MESSAGE_ID_REUSED", "Client message id was already used"

    def __init__(self) -> None:
        super().__init__("Another message of this session has the same clientMessageId or Idempotency-Key.")


class MessagesDisabled(ServiceError):
    """SESSION_MAX_MESSAGES is 0."""

    status, code, message = 501, "MESSAGES_DISABLED", "Messages are disabled"

    def __init__(self) -> None:
        super().__init__("This service does not accept messages (SESSION_MAX_MESSAGES is 0).")
