"""Which commands go to which server of a cluster, and what a server says that will not take them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from redis.crc import key_slot

from service.redis_client.client import Reply
from service.redis_client.errors import is_redirection
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
