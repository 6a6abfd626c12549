"""The inboxes of agents: deliveries that are leased to one consumer at a time, until they are completed."""

from collections.abc import Sequence
from typing import NamedTuple

from service.messages.message import Message, is_user_message_id, message_from
from service.redis_client.client import RedisClient, Reply, query_readable
from service.redis_client.errors import UnexpectedReply
from service.sessions import scripts
from service.sessions.events import SessionEvents
from service.sessions.keys import Keys
from service.sessions.session import Session, is_issued_id, session_from
from service.settings import Settings

_CANCEL = "cancel"


class Delivery(NamedTuple):
    """A message for an agent, or the cancellation of one."""

    id: str
    """Identifies the delivery in its inbox: session id, message id, and for a cancellation the word `cancel`."""
    attempt: int
    """1 for the first delivery."""
    session_id: str
    message_id: str
    message: Message | None
    """None: a cancellation."""
    session: Session | None
    """None: a cancellation, or the session has ended."""
    leased_at_ms: int | None = None
    """In milliseconds of the clock of the session's server."""


class LeasedDeliveries(NamedTuple):
    """Deliveries, and the seconds until another one may be available, if any waits."""

    deliveries: list[Delivery]
    next_in_seconds: float | None


class Inboxes:
    """The inboxes of all agents. Every method raises StoreUnavailable."""

    def __init__(self, client: RedisClient, keys: Keys, events: SessionEvents, settings: Settings) -> None:
        self._client = client
        self._keys = keys
        self._events = events
        self._lifetime_ms = settings.message_lifetime_ms
        self._lease_ms = round(settings.session_inbox_lease_seconds * 1000)

    async def add(self, agent_id: str, session_id: str, message_id: str, *, is_cancel: bool) -> None:
        """Add a message or a cancellation. Adding it again while it is in the inbox changes nothing."""
        command = scripts.ADD_TO_INBOX.command(
            self._keys.inbox(agent_id),
            message=delivery_member(session_id, message_id),
            is_cancel="true" if is_cancel else "false",
            lifetime_ms=self._lifetime_ms,
        )
        await self._client.execute(command)

    async def lease(self, agent_id: str, limit: int) -> LeasedDeliveries:
        """Lease the oldest deliveries to the caller.

        Removes deliveries whose message was answered or cancelled or is gone, and unreadable ones.
        """
        command = scripts.LEASE_DELIVERIES.command(self._keys.inbox(agent_id), limit=limit, lease_ms=self._lease_ms)
        (reply,) = await self._client.execute(command)
        match reply:
            case [b"leased", next_in_ms, leased]:
                deliveries = await self._read(agent_id, leased[::2], leased[1::2])
                return LeasedDeliveries(deliveries, None if next_in_ms < 0 else next_in_ms / 1000)
            case _:
                raise UnexpectedReply(repr(reply))

    async def complete(self, agent_id: str, delivery_ids: Sequence[str]) -> int:
        """Remove deliveries. Return how many were in the inbox."""
        command = scripts.COMPLETE_DELIVERIES.command(self._keys.inbox(agent_id), members="\n".join(delivery_ids))
        ((_, number),) = await self._client.execute(command)
        return int(number)

    async def extend(self, agent_id: str, delivery_ids: Sequence[str]) -> int:
        """Extend leases by the time of a new lease. Return how many deliveries were in the inbox."""
        command = scripts.EXTEND_DELIVERIES.command(
            self._keys.inbox(agent_id), lease_ms=self._lease_ms, members="\n".join(delivery_ids)
        )
        ((_, number),) = await self._client.execute(command)
        return int(number)

    async def find_leased(self, agent_id: str, delivery_ids: Sequence[str]) -> set[str]:
        """Return the deliveries that are not completed and whose lease has not ended."""
        if not delivery_ids:
            return set()
        command = scripts.LEASED_DELIVERIES.command(self._keys.inbox(agent_id), members="\n".join(delivery_ids))
        ((_, leased),) = await self._client.query(command)
        return {delivery_id.decode() for delivery_id in leased}

    async def _read(self, agent_id: str, members: Sequence[bytes], attempts: Sequence[int]) -> list[Delivery]:
        readable = [
            (member, attempt) for member, attempt in zip(members, attempts, strict=True) if _is_readable(member)
        ]
        commands = [
            scripts.READ_DELIVERY.command(
                self._keys.of(session_id), message_id=message_id, is_cancel="true" if is_cancel else "false"
            )
            for session_id, message_id, is_cancel in (parse_delivery(member.decode()) for member, _ in readable)
        ]
        replies = await query_readable(self._client, commands)
        deliveries, done = [], []
        unreadable = [member for member in members if not _is_readable(member)]
        for (member, attempt), reply in zip(readable, replies, strict=True):
            try:
                delivery = _delivery_from(member.decode(), attempt, reply)
            except (AssertionError, KeyError, ValueError):  # the message or its session was changed by hand
                unreadable.append(member)
                continue
            if delivery is None:
                done.append(member)
            else:
                deliveries.append(delivery)
        for member in unreadable:
            self._events.record_unreadable(repr(member))
        if removed := [*done, *unreadable]:
            keys = self._keys.inbox(agent_id)
            await self._client.execute(("ZREM", keys.inbox, *removed), ("HDEL", keys.attempts, *removed))
        return deliveries


def _delivery_from(member: str, attempt: int, reply: Reply) -> Delivery | None:
    """Return None if there is nothing to deliver. Raises ValueError for an unreadable message."""
    session_id, message_id, is_cancel = parse_delivery(member)
    match reply:
        case None:
            raise ValueError("the message cannot be read")
        case [b"done"]:
            return None
        case _ if is_cancel:
            return Delivery(member, attempt, session_id, message_id, None, None)
        case [b"live", now_ms, values, entry]:
            session = session_from(session_id, values, now_ms)
            return Delivery(member, attempt, session_id, message_id, message_from(entry), session, now_ms)
        case [b"ended", entry]:
            return Delivery(member, attempt, session_id, message_id, message_from(entry), None)
        case _:
            raise UnexpectedReply(repr(reply[0]))


def delivery_member(session_id: str, message_id: str) -> str:
    """Return the id of the delivery of a message."""
    return f"{session_id} {message_id}"


def parse_delivery(delivery_id: str) -> tuple[str, str, bool]:
    """Return the session id, the message id, and whether it is a cancellation. Raises ValueError for another text."""
    session_id, message_id, *cancel = delivery_id.split(" ")
    if not is_issued_id(session_id) or not is_user_message_id(message_id) or cancel not in ([], [_CANCEL]):
        raise ValueError("no id of a delivery")
    return session_id, message_id, bool(cancel)


def _is_readable(member: bytes) -> bool:
    try:
        parse_delivery(member.decode())
    except ValueError:
        return False
    return True
