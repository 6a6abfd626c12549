"""The address of a client, also behind trusted proxies."""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from aiohttp import web

from service.settings.http import Network

UNKNOWN_ADDRESS = "unknown"
"""Used for peers without an IP address, such as clients of a Unix socket."""

_WITH_PORT = re.compile(r"\[([^\]]*)\](?::\d+)?|([\d.]+):\d+")
"""Some proxies append the port of the client."""

_CACHE_SIZE = 4096
_MAX_ADDRESS_LENGTH = 64


class _Hop(NamedTuple):
    address: str
    is_trusted: bool


class ClientAddresses:
    """Finds client addresses. Only trusted proxies can set an address in `X-Forwarded-For`."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = trusted
        self._parse_cached = lru_cache(_CACHE_SIZE)(self._parse_hop)

    def address_of(self, request: web.BaseRequest) -> str:
        """Return the last address that is not a trusted proxy, or the first address if all are trusted.

        The search starts at the peer, and stops at an invalid address.
        """
        hop = self._hop(request.remote or "") or _Hop(UNKNOWN_ADDRESS, is_trusted=False)
        if not hop.is_trusted:
            return hop.address
        forwarded = ",".join(request.headers.getall("X-Forwarded-For", ())).split(",")
        for word in reversed(forwarded):
            previous = self._hop(word.strip())
            if previous is None:
                break
            hop = previous
            if not hop.is_trusted:
                break
        return hop.address

    def _hop(self, word: str) -> _Hop | None:
        return self._parse_cached(word) if len(word) <= _MAX_ADDRESS_LENGTH else None

    def _parse_hop(self, word: str) -> _Hop | None:
        address = _parse_address(word)
        if address is None:
            return None
        return _Hop(str(address), any(address in network for network in self._trusted))


def _parse_address(word: str) -> IPv4Address | IPv6Address | None:
    """Parse an address with an optional port. Unwrap IPv4 addresses in IPv6 addresses, and remove IPv6 zones."""
    with_port = _WITH_PORT.fullmatch(word)
    bare = (with_port[1] or with_port[2] or "") if with_port else word
    try:
        address = ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
