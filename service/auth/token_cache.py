"""Tokens that were found good a moment ago: to judge one takes twice as long as to answer a request."""

import hashlib
import time
from collections import OrderedDict
from typing import NamedTuple

from service.auth.scopes import Caller

GOOD_FOR_SECONDS = 60
"""How long a token goes on being taken whose key the issuer has withdrawn."""

MAX_REMEMBERED = 10_000


class _Found(NamedTuple):
    caller: Caller
    until: float
    """On the monotonic clock, in seconds."""


class TokenCache:
    """Who bears which token, by the hash of it: the tokens themselves are not kept."""

    def __init__(self) -> None:
        self._found: OrderedDict[bytes, _Found] = OrderedDict()

    def caller(self, token: str) -> Caller | None:
        found = self._found.get(_digest_of(token))
        return found.caller if found is not None and time.monotonic() < found.until else None

    def remember(self, token: str, caller: Caller, left_seconds: float) -> None:
        """For as long as the token has left, at most."""
        digest = _digest_of(token)
        self._found[digest] = _Found(caller, time.monotonic() + min(left_seconds, GOOD_FOR_SECONDS))
        self._found.move_to_end(digest)
        if len(self._found) > MAX_REMEMBERED:
            self._found.popitem(last=False)


def _digest_of(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
