"""Which commands go to which node of a cluster: hash slots, redirections and the slot map."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Any, NamedTuple

from redis.crc import key_slot
from redis.exceptions import ResponseError

from service.errors import StoreUnavailable
from service.redis_client.client import Reply
from service.redis_client.errors import is_redirection
from service.redis_client.monitor import Incident
from service.redis_client.scripts import Argument, Command
from service.settings.redis_url import Host

_COMMANDS_WITHOUT_KEY = frozenset(("TIME", "PING", "INFO", "CONFIG", "SCRIPT"))
_KEY_INDEXES = {"EVALSHA": 3, "EVAL": 3, "OBJECT": 2}
_CLUSTER_SLOTS: Command = ("CLUSTER", "SLOTS")

_MIN_REFRESH_SECONDS = 0.1
"""The minimum time between two queries for the slot map."""

_MAX_NODES_PER_TIMEOUT = 3
"""How many unresponsive nodes a query for the slot map can try within the timeout, if there are so many."""

Query = Callable[[Host, Command], Awaitable[Reply]]
"""Sends one command to a node, over a separate connection. It may raise anything."""


class RoutedCommand(NamedTuple):
    """A command with a key and the commands without a key that follow it. `indexes` are their positions in the call.

    `host` is the target of a redirection. With `is_asking`, the target is still importing the slot.
    """

    slot: int
    indexes: list[int]
    host: Host | None = None
    is_asking: bool = False


def route_commands(commands: Sequence[Command]) -> list[RoutedCommand]:
    routed: list[RoutedCommand] = []
    for index, command in enumerate(commands):
        if command[0] in _COMMANDS_WITHOUT_KEY and routed:
            routed[-1].indexes.append(index)
        else:
            routed.append(RoutedCommand(slot_of(key_of(command)), [index]))
    return routed


def key_of(command: Command) -> Argument:
    """The key that determines a command's node, or an empty string if it has none."""
    index = _KEY_INDEXES.get(str(command[0]), 1)
    return command[index] if len(command) > index else ""


def slot_of(key: Argument) -> int:
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def ordered_groups(commands: Sequence[Command]) -> list[list[Command]]:
    """Split commands into groups that may share a round trip: one slot, and at most one script, as the last command."""
    groups: list[tuple[int, list[Command]]] = []
    for routed in route_commands(commands):
        if not groups or groups[-1][0] != routed.slot or groups[-1][1][-1][0] == "EVALSHA":
            groups.append((routed.slot, []))
        groups[-1][1].extend(commands[index] for index in routed.indexes)
    return [group for _, group in groups]


def redirected(routed: RoutedCommand, replies: Mapping[int, Reply], sender: Host) -> RoutedCommand | None:
    """The command with its new target, or None if it was executed."""
    redirection = next((replies[index] for index in routed.indexes if is_redirection(replies[index])), None)
    match str(redirection).split(" ") if redirection is not None else []:
        case []:
            return None
        case ["TRYAGAIN", *_]:
            return routed
        case [code, _, address]:
            return routed._replace(host=_host(address, sender), is_asking=code == "ASK")
        case words:
            raise ValueError(" ".join(words))


def group_by_node(
    routed: Sequence[RoutedCommand], hosts: Sequence[Host]
) -> dict[tuple[Host, bool], list[RoutedCommand]]:
    """Group commands by node, and by whether each needs ASKING."""
    groups: defaultdict[tuple[Host, bool], list[RoutedCommand]] = defaultdict(list)
    for command, host in zip(routed, hosts, strict=True):
        groups[host, command.is_asking].append(command)
    return groups


def _host(address: str, sender: Host) -> Host:
    """Parse an address. A node that does not know its own hostname omits it."""
    name, _, port = address.rpartition(":")
    return name.strip("[]") or sender[0], int(port)


class Topology:
    """The slot map of a cluster. Queries known nodes first, and then the `hosts` of the URL."""

    def __init__(self, query: Query, hosts: Sequence[Host], timeout_seconds: float) -> None:
        self._query = query
        self._hosts = hosts
        self._timeout_seconds = timeout_seconds
        self._slots: dict[int, Host] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._next_refresh_at = 0.0
        self._outage = Incident("no cluster node returns the slot map", "the cluster returns the slot map again")

    async def host_of(self, slot: int) -> Host:
        """The primary that holds a slot. Raises StoreUnavailable if the slot is not served, or no node responds."""
        if not self._slots:
            await self._refreshed()
        try:
            return self._slots[slot]
        except KeyError:
            self.refresh()
            raise StoreUnavailable(f"no cluster node serves slot {slot}") from None

    async def hosts(self) -> list[Host]:
        """All primaries that hold slots. Raises StoreUnavailable if no node responds."""
        if not self._slots:
            await self._refreshed()
        return list(self.known)

    @property
    def known(self) -> AbstractSet[Host]:
        """All primaries of the current slot map, in no particular order."""
        return dict.fromkeys(self._slots.values()).keys()

    def move(self, slot: int, host: Host) -> None:
        """Apply a MOVED redirection, and refresh the slot map: other slots may have moved, too."""
        self._slots[slot] = host
        self.refresh()

    def refresh(self) -> "asyncio.Task[None]":
        """Query the slot map in the background. Concurrent calls share one query."""
        if self._refreshing is None:
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh())
        return self._refreshing

    async def aclose(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])

    async def _refreshed(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_seconds):
                await asyncio.shield(self.refresh())
        if not self._slots:
            raise StoreUnavailable("no cluster node returned the slot map")

    async def _refresh(self) -> None:
        """Log failures instead of raising them, and keep the previous slot map."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(self._next_refresh_at - loop.time(), 0))
        try:
            async with asyncio.timeout(self._timeout_seconds):
                self._slots = await self._query_slots()
        except (StoreUnavailable, TimeoutError) as error:
            self._outage.record_failure(error)
        else:
            self._outage.record_success()
        finally:
            self._next_refresh_at = loop.time() + _MIN_REFRESH_SECONDS
            self._refreshing = None

    async def _query_slots(self) -> dict[int, Host]:
        """The slot map of the first node that has one. Raises StoreUnavailable if none has."""
        known = [host for host in self.known if host not in self._hosts]
        hosts = [*random.sample(known, len(known)), *random.sample(self._hosts, len(self._hosts))]
        timeout_seconds = self._timeout_seconds / min(len(hosts), _MAX_NODES_PER_TIMEOUT)
        replies: dict[Host, object] = {}
        for host in hosts:
            try:
                async with asyncio.timeout(timeout_seconds):
                    reply = await self._query(host, _CLUSTER_SLOTS)
                if isinstance(reply, list) and reply:
                    return {slot: primary for slots in reply for slot, primary in _slots_in(slots, host).items()}
            except Exception as error:  # the reply may be anything
                reply = error
            replies[host] = reply
        raise StoreUnavailable(
            "; ".join(f"{name}:{port}: {_failure_of(reply)}" for (name, port), reply in replies.items())
        )


def _slots_in(slot_range: Sequence[Any], sender: Host) -> dict[int, Host]:
    """One range of the reply to CLUSTER SLOTS. A node that does not know its own hostname omits it."""
    first, last, (name, port, *_), *_replicas = slot_range
    return dict.fromkeys(range(first, last + 1), (name.decode() if name else sender[0], int(port)))


def _failure_of(reply: object) -> str:
    match reply:
        case []:
            return "no slots are assigned"
        case ResponseError():
            return f"{reply} (to CLUSTER SLOTS)"
        case _:
            return f"{type(reply).__name__}: {reply}"
