"""Where a request comes from: its client's address, also behind proxies, where these are trusted to tell it."""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from aiohttp import web

Network = IPv4Network | IPv6Network

UNKNOWN = "unknown"
"""In the place of an address where a peer has none, as at a Unix socket."""

_WITH_A_PORT = re.compile(r"\[([^\]]*)\](?::\d+)?|([\d.]+):\d+")
"""Some proxies add the port that they saw."""

_REMEMBERED = 4096
_LONGEST = 64


class _Hop(NamedTuple):
    address: str
    is_trusted: bool


class ClientAddresses:
    """Those of clients. `X-Forwarded-For` is believed as far as it was written by the `trusted`, and no further."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = trusted
        self._known = lru_cache(_REMEMBERED)(self._judged)

    def of(self, request: web.BaseRequest) -> str:
        """The last address on the way here that is no trusted proxy's; where all are, the first of them.

        What is no address ends the search at the one behind it.
        """
        hop = self._hop(request.remote or "") or _Hop(UNKNOWN, is_trusted=False)
        if not hop.is_trusted:
            return hop.address
        told = ",".join(request.headers.getall("X-Forwarded-For", ())).split(",")
        for word in reversed(told):
            before = self._hop(word.strip())
            if before is None:
                break
            hop = before
            if not hop.is_trusted:
                break
        return hop.address

    def _hop(self, word: str) -> _Hop | None:
        """None where it is no address."""
        return self._known(word) if len(word) <= _LONGEST else None

    def _judged(self, word: str) -> _Hop | None:
        address = _read(word)
        if address is None:
            return None
        return _Hop(str(address), any(address in network for network in self._trusted))


def read_networks(text: str) -> list[Network]:
    """Addresses and networks with blanks or commas between them. Raises ValueError that names the one at fault."""
    return [_network(word) for word in text.replace(",", " ").split()]


def _network(word: str) -> Network:
    try:
        return ip_network(word)
    except ValueError as error:
        raise ValueError(f"{word!r} is neither an address nor a network ({error})") from None


def _read(word: str) -> IPv4Address | IPv6Address | None:
    """An IPv4 address within an IPv6 one is itself; a zone is no part of one."""
    inside = _WITH_A_PORT.fullmatch(word)
    bare = (inside[1] or inside[2] or "") if inside else word
    try:
        address = ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
