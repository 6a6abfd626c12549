"""The inboxes of agents: deliveries that are leased to one consumer at a time, until they are completed."""

from collections.abc import Sequence
from typing import NamedTuple

from service.messages.message import Message, message_from
from service.redis_client.client import RedisClient
from service.redis_client.errors import UnexpectedReply
from service.sessions import scripts
from service.sessions.keys import Keys
from service.sessions.session import Session, session_from
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

    def __init__(self, client: RedisClient, keys: Keys, settings: Settings) -> None:
        self._client = client
        self._keys = keys
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
        """Lease the oldest deliveries to the caller. Removes deliveries whose message was answered or is gone."""
        command = scripts.LEASE_DELIVERIES.command(self._keys.inbox(agent_id), limit=limit, lease_ms=self._lease_ms)
        (reply,) = await self._client.execute(command)
        match reply:
            case [b"leased", next_in_ms, leased]:
                members = [member.decode() for member in leased[::2]]
                deliveries = await self._read(agent_id, members, leased[1::2])
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

    async def uncompleted(self, agent_id: str, delivery_ids: Sequence[str]) -> set[str]:
        """Return the deliveries that are still in the inbox."""
        if not delivery_ids:
            return set()
        (scores,) = await self._client.query(("ZMSCORE", self._keys.inbox(agent_id).inbox, *delivery_ids))
        return {delivery_id for delivery_id, score in zip(delivery_ids, scores, strict=True) if score is not None}

    async def _read(self, agent_id: str, members: Sequence[str], attempts: Sequence[int]) -> list[Delivery]:
        parsed = [_parse(member) for member in members]
        commands = [
            scripts.READ_DELIVERY.command(self._keys.of(session_id), message_id=message_id)
            for session_id, message_id, _ in parsed
        ]
        replies = await self._client.query(*commands)
        deliveries, done = [], []
        for member, (session_id, message_id, is_cancel), attempt, reply in zip(
            members, parsed, attempts, replies, strict=True
        ):
            match reply:
                case [b"done"]:
                    done.append(member)
                case _ if is_cancel:
                    deliveries.append(Delivery(member, attempt, session_id, message_id, None, None))
                case [b"live", now_ms, values, entry]:
                    session = session_from(session_id, values, now_ms)
                    deliveries.append(
                        Delivery(member, attempt, session_id, message_id, message_from(entry), session, now_ms)
                    )
                case [b"ended", entry]:
                    deliveries.append(Delivery(member, attempt, session_id, message_id, message_from(entry), None))
                case _:
                    raise UnexpectedReply(repr(reply))
        if done:
            await self.complete(agent_id, done)
        return deliveries


def delivery_member(session_id: str, message_id: str) -> str:
    """Return the id of the delivery of a message."""
    return f"{session_id} {message_id}"


def _parse(member: str) -> tuple[str, str, bool]:
    session_id, message_id, *cancel = member.split(" ")
    return session_id, message_id, cancel == [_CANCEL]
