"""Which commands go to which server of a cluster, and what a server says that will not take them."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Any, NamedTuple

from redis.crc import key_slot
from redis.exceptions import RedisError, ResponseError

from service.errors import StoreUnavailable
from service.redis_client.client import Reply
from service.redis_client.errors import is_redirection
from service.redis_client.monitor import Incident
from service.redis_client.scripts import Argument, Command
from service.settings.redis_url import Host

_WITHOUT_A_KEY = frozenset(("TIME", "PING", "INFO", "CONFIG", "SCRIPT"))
_PLACE_OF_THE_KEY = {"EVALSHA": 3, "EVAL": 3, "OBJECT": 2}


class RoutedCommand(NamedTuple):
    """One command with a key, and those without one that follow it; `places` are theirs among all commands.

    `host` is where a server sent it; with `asking` that one is to take it although the slot is not all there yet.
    """

    slot: int
    places: list[int]
    host: Host | None = None
    asking: bool = False


def route_commands(commands: Sequence[Command]) -> list[RoutedCommand]:
    routed_commands: list[RoutedCommand] = []
    for place, command in enumerate(commands):
        if command[0] in _WITHOUT_A_KEY and routed_commands:
            routed_commands[-1].places.append(place)
        else:
            routed_commands.append(RoutedCommand(slot_of(key_of(command)), [place]))
    return routed_commands


def key_of(command: Command) -> Argument:
    """The key by which a command finds its server; where there is none any will do."""
    place = _PLACE_OF_THE_KEY.get(str(command[0]), 1)
    return command[place] if len(command) > place else ""


def slot_of(key: Argument) -> int:
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def ordered_groups(commands: Sequence[Command]) -> list[list[Command]]:
    """The commands in their order, those together that may be: of one slot, with one script at most, as the last."""
    turns: list[tuple[int, list[Command]]] = []
    for routed in route_commands(commands):
        if not turns or turns[-1][0] != routed.slot or turns[-1][1][-1][0] == "EVALSHA":
            turns.append((routed.slot, []))
        turns[-1][1].extend(commands[place] for place in routed.places)
    return [turn for _, turn in turns]


def redirected(routed: RoutedCommand, replies: Mapping[int, Reply], sender: Host) -> RoutedCommand | None:
    """The errand as it goes on by what its server said; None where it is done."""
    redirection = next((replies[place] for place in routed.places if is_redirection(replies[place])), None)
    match str(redirection).split(" ") if redirection is not None else []:
        case []:
            return None
        case ["TRYAGAIN", *_]:
            return routed
        case [code, _, address]:
            return routed._replace(host=_host(address, sender), asking=code == "ASK")
        case words:
            raise ValueError(" ".join(words))


def group_by_node(
    routed_commands: Sequence[RoutedCommand], hosts: Sequence[Host]
) -> dict[tuple[Host, bool], list[RoutedCommand]]:
    """Those together that go to one server in one way."""
    trips: defaultdict[tuple[Host, bool], list[RoutedCommand]] = defaultdict(list)
    for routed, host in zip(routed_commands, hosts, strict=True):
        trips[host, routed.asking].append(routed)
    return trips


def _host(address: str, sender: Host) -> Host:
    """A server that does not know its own name leaves it out."""
    name, _, port = address.rpartition(":")
    return name.strip("[]") or sender[0], int(port)


_PAUSE_SECONDS = 0.1
"""At least so long lies between two askings, however many want them."""

_HOSTS_IN_TIME = 3
"""How many servers there is time to ask if the first of them are silent."""

_SLOTS: Command = ("CLUSTER", "SLOTS")

Ask = Callable[[Host, Command], Awaitable[Reply]]
"""Asks a server over a connection of its own. Raises OSError and what redis-py raises."""


class Topology:
    """Learns where slots are when it is first asked, and again when told that something moved or does not answer.

    Servers that are known are asked first, and the `hosts` of the URL where none of those answers any more.
    """

    def __init__(self, ask: Ask, hosts: Sequence[Host], timeout_seconds: float) -> None:
        self._ask = ask
        self._hosts = hosts
        self._timeout_seconds = timeout_seconds
        self._places: dict[int, Host] = {}
        self._learning: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._silence = Incident("no server of the cluster says where its slots are", "the cluster says where they are")

    async def host_of(self, slot: int) -> Host:
        """The primary that holds a slot. Raises StoreUnavailable where none does, or none can be asked."""
        if not self._places:
            await self.learnt()
        try:
            return self._places[slot]
        except KeyError:
            self.learn()
            raise StoreUnavailable(f"no server of the cluster holds slot {slot}") from None

    async def hosts(self) -> list[Host]:
        """Every primary that holds slots. Raises StoreUnavailable where none can be asked."""
        if not self._places:
            await self.learnt()
        return list(self.known)

    @property
    def known(self) -> AbstractSet[Host]:
        """Every primary that is known to hold slots, in no order that means anything."""
        return dict.fromkeys(self._places.values()).keys()

    def moved(self, slot: int, host: Host) -> None:
        """Told by a server that a slot is at another; more may have moved with it."""
        self._places[slot] = host
        self.learn()

    def learn(self) -> "asyncio.Task[None]":
        """Ask the cluster anew, beside what goes on; one asking serves all who want it."""
        if self._learning is None:
            self._learning = asyncio.get_running_loop().create_task(self._learn_in_peace())
        return self._learning

    async def learnt(self) -> None:
        """The same, awaited. Raises StoreUnavailable where nobody could be asked."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_seconds):
                await asyncio.shield(self.learn())
        if not self._places:
            raise StoreUnavailable("no server of the cluster says where the slots are")

    async def aclose(self) -> None:
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.wait([self._learning])

    async def _learn_in_peace(self) -> None:
        """Trouble is only told of: what is known stays known."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(self._not_before - loop.time(), 0))
        try:
            async with asyncio.timeout(self._timeout_seconds):
                self._places = await self._found()
        except (StoreUnavailable, TimeoutError) as error:
            self._silence.record_failure(error)
        else:
            self._silence.record_success()
        finally:
            self._not_before = loop.time() + _PAUSE_SECONDS
            self._learning = None

    async def _found(self) -> dict[int, Host]:
        """Where the slots are by the first server that knows of any. Raises StoreUnavailable where none does."""
        known = [host for host in self.known if host not in self._hosts]
        answers: dict[Host, object] = {}
        for host in [*random.sample(known, len(known)), *random.sample(self._hosts, len(self._hosts))]:
            try:
                async with asyncio.timeout(self._timeout_seconds / _HOSTS_IN_TIME):
                    ranges = await self._ask(host, _SLOTS)
            except (RedisError, OSError, TimeoutError) as error:
                ranges = error
            if isinstance(ranges, list) and ranges:
                return {slot: place for range_ in ranges for slot, place in _places_in(range_, host).items()}
            answers[host] = ranges
        raise StoreUnavailable("; ".join(f"{name}:{port}: {_said(answer)}" for (name, port), answer in answers.items()))


def _places_in(range_: Sequence[Any], asked: Host) -> dict[int, Host]:
    """The slots of one range, by their primary; one that does not know its own name leaves it out."""
    first, last, (name, port, *_), *_replicas = range_
    host = (name.decode() if name else asked[0], int(port))
    return dict.fromkeys(range(first, last + 1), host)


def _said(answer: object) -> str:
    match answer:
        case []:
            return "no slots have been given out yet"
        case ResponseError():
            return f"{answer} (to CLUSTER SLOTS)"
        case _:
            return f"{type(answer).__name__}: {answer}"
