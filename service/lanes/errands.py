"""Which commands go to which server of a cluster, and what a server says that will not take them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from redis.crc import key_slot

from service.lanes.lane import Reply, is_redirection
from service.lanes.redis_url import Host
from service.life.scripts import Argument, Command

_WITHOUT_A_KEY = frozenset(("TIME", "PING", "INFO", "CONFIG", "SCRIPT"))
_PLACE_OF_THE_KEY = {"EVALSHA": 3, "EVAL": 3, "OBJECT": 2}


class Errand(NamedTuple):
    """One command with a key, and those without one that follow it; `places` are theirs among all commands.

    `host` is where a server sent it; with `asking` that one is to take it although the slot is not all there yet.
    """

    slot: int
    places: list[int]
    host: Host | None = None
    asking: bool = False


def errands_of(commands: Sequence[Command]) -> list[Errand]:
    errands: list[Errand] = []
    for place, command in enumerate(commands):
        if command[0] in _WITHOUT_A_KEY and errands:
            errands[-1].places.append(place)
        else:
            errands.append(Errand(slot_of(key_of(command)), [place]))
    return errands


def key_of(command: Command) -> Argument:
    """The key by which a command finds its server; where there is none any will do."""
    place = _PLACE_OF_THE_KEY.get(str(command[0]), 1)
    return command[place] if len(command) > place else ""


def slot_of(key: Argument) -> int:
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def in_turn(commands: Sequence[Command]) -> list[list[Command]]:
    """The commands in their order, those together that may be: of one slot, with one script at most, as the last."""
    turns: list[tuple[int, list[Command]]] = []
    for errand in errands_of(commands):
        if not turns or turns[-1][0] != errand.slot or turns[-1][1][-1][0] == "EVALSHA":
            turns.append((errand.slot, []))
        turns[-1][1].extend(commands[place] for place in errand.places)
    return [turn for _, turn in turns]


def sent_on(errand: Errand, replies: Mapping[int, Reply], sender: Host) -> Errand | None:
    """The errand as it goes on by what its server said; None where it is done."""
    redirection = next((replies[place] for place in errand.places if is_redirection(replies[place])), None)
    match str(redirection).split(" ") if redirection is not None else []:
        case []:
            return None
        case ["TRYAGAIN", *_]:
            return errand
        case [code, _, address]:
            return errand._replace(host=_host(address, sender), asking=code == "ASK")
        case words:
            raise ValueError(" ".join(words))


def by_trip(errands: Sequence[Errand], hosts: Sequence[Host]) -> dict[tuple[Host, bool], list[Errand]]:
    """Those together that go to one server in one way."""
    trips: defaultdict[tuple[Host, bool], list[Errand]] = defaultdict(list)
    for errand, host in zip(errands, hosts, strict=True):
        trips[host, errand.asking].append(errand)
    return trips


def _host(address: str, sender: Host) -> Host:
    """A server that does not know its own name leaves it out."""
    name, _, port = address.rpartition(":")
    return name.strip("[]") or sender[0], int(port)
