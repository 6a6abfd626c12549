"""Whom requests are counted for: addresses and callers, in words that are short and safe within a key."""

import hashlib
import re
from functools import lru_cache
from ipaddress import IPv6Network, ip_address

from service.auth.scopes import Caller

_SAFE = re.compile(r"[\w.@|:/+=-]{1,64}", re.ASCII)
_REMEMBERED = 4096
_OF_ONE_SITE = 64
"""The bits of an IPv6 address that its owner does not choose: each has 2^64 addresses or more."""


@lru_cache(_REMEMBERED)
def subject_of_address(address: str) -> str:
    """An IPv4 address itself, of an IPv6 address the network; a word stands for itself."""
    try:
        known = ip_address(address)
    except ValueError:
        return address
    return address if known.version == 4 else str(IPv6Network((int(known), _OF_ONE_SITE), strict=False))


@lru_cache(_REMEMBERED)
def subject_of_caller(caller: Caller) -> str:
    """Keys and tokens apart, for nobody keeps an issuer from a `sub` that is the name of a key."""
    name = caller.name
    if not _SAFE.fullmatch(name):
        name = "#" + hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return f"{caller.by}:{name}"
